"""Objectives: the only place that weighs terms, follows a schedule and reduces the batch."""

from vaelab.objectives.base import Objective
from vaelab.objectives.capacity import Capacity
from vaelab.objectives.dip import DIPVAE
from vaelab.objectives.elbo import ELBO
from vaelab.objectives.free_bits import FreeBits
from vaelab.objectives.geco import GECO
from vaelab.objectives.iwae import CIWAE, IWAE, MIWAE, PIWAE
from vaelab.objectives.mmd import InfoVAE
from vaelab.objectives.renyi import Renyi
from vaelab.objectives.swae import SWAE
from vaelab.objectives.tc import BetaTCVAE

__all__ = [
    "CIWAE",
    "DIPVAE",
    "ELBO",
    "GECO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "SWAE",
    "BetaTCVAE",
    "Capacity",
    "FreeBits",
    "InfoVAE",
    "Objective",
    "Renyi",
]
