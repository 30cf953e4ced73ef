"""Samplers: q(z|x), from features to a posterior that can be drawn from by reparameterisation."""

from vaelab.samplers.base import Sampler
from vaelab.samplers.bernoulli import BernoulliSampler
from vaelab.samplers.categorical import CategoricalSampler
from vaelab.samplers.codes import CodeSampler, Quantized
from vaelab.samplers.coupling import CouplingFlowSampler
from vaelab.samplers.deterministic import Delta, DeterministicSampler
from vaelab.samplers.finite_scalar_quantizer import FiniteScalarQuantizer
from vaelab.samplers.full_gaussian import FullGaussianSampler
from vaelab.samplers.gaussian import GaussianSampler
from vaelab.samplers.iaf import IAFSampler
from vaelab.samplers.laplace import LaplaceSampler
from vaelab.samplers.planar import PlanarFlowSampler
from vaelab.samplers.residual_quantizer import ResidualQuantizer
from vaelab.samplers.vector_quantizer import VectorQuantizer
from vaelab.samplers.von_mises_fisher import VonMisesFisherSampler

__all__ = [
    "BernoulliSampler",
    "CategoricalSampler",
    "CodeSampler",
    "CouplingFlowSampler",
    "Delta",
    "DeterministicSampler",
    "FiniteScalarQuantizer",
    "FullGaussianSampler",
    "GaussianSampler",
    "IAFSampler",
    "LaplaceSampler",
    "PlanarFlowSampler",
    "Quantized",
    "ResidualQuantizer",
    "Sampler",
    "VectorQuantizer",
    "VonMisesFisherSampler",
]
