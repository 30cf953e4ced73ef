"""Objectives: the only place that weighs terms, follows a schedule and reduces the batch."""

from vaelab.objectives.aae import AAE
from vaelab.objectives.adversarial import Adversarial
from vaelab.objectives.base import Objective
from vaelab.objectives.capacity import Capacity
from vaelab.objectives.dip import DIPVAE
from vaelab.objectives.elbo import ELBO
from vaelab.objectives.factor_vae import FactorVAE
from vaelab.objectives.free_bits import FreeBits
from vaelab.objectives.geco import GECO
from vaelab.objectives.iwae import CIWAE, IWAE, MIWAE, PIWAE
from vaelab.objectives.mmd import InfoVAE
from vaelab.objectives.perceptual import Perceptual
from vaelab.objectives.prior_likelihood import PriorLikelihood
from vaelab.objectives.rae import RAE
from vaelab.objectives.renyi import Renyi
from vaelab.objectives.swae import SWAE
from vaelab.objectives.tc import BetaTCVAE
from vaelab.objectives.vae_gan import VAEGAN

__all__ = [
    "AAE",
    "CIWAE",
    "DIPVAE",
    "ELBO",
    "GECO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "RAE",
    "SWAE",
    "VAEGAN",
    "Adversarial",
    "BetaTCVAE",
    "Capacity",
    "FactorVAE",
    "FreeBits",
    "InfoVAE",
    "Objective",
    "Perceptual",
    "PriorLikelihood",
    "Renyi",
]
