"""Priors: p(z)."""

from vaelab.priors.base import Prior
from vaelab.priors.bernoulli import BernoulliPrior
from vaelab.priors.categorical import CategoricalPrior
from vaelab.priors.codes import CodesPrior
from vaelab.priors.flow import FlowPrior
from vaelab.priors.full_gaussian import FullGaussianPrior
from vaelab.priors.gaussian_mixture import GaussianMixturePrior
from vaelab.priors.pixelcnn import PixelCNNPrior
from vaelab.priors.standard_normal import StandardNormalPrior
from vaelab.priors.uniform_sphere import UniformSpherePrior
from vaelab.priors.vamp import VampPrior

__all__ = [
    "BernoulliPrior",
    "CategoricalPrior",
    "CodesPrior",
    "FlowPrior",
    "FullGaussianPrior",
    "GaussianMixturePrior",
    "PixelCNNPrior",
    "Prior",
    "StandardNormalPrior",
    "UniformSpherePrior",
    "VampPrior",
]
