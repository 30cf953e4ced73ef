"""Models: one file per factorisation (which random variables there are, and who depends on whom)."""

from vaelab.models.base import Model
from vaelab.models.build import build_vae
from vaelab.models.hierarchical import HierarchicalVAE
from vaelab.models.ladder import LadderVAE, build_ladder_vae
from vaelab.models.semi_supervised import M2, build_m2
from vaelab.models.terms import Latent, Terms
from vaelab.models.vae import VAE

__all__ = [
    "M2",
    "VAE",
    "HierarchicalVAE",
    "LadderVAE",
    "Latent",
    "Model",
    "Terms",
    "build_ladder_vae",
    "build_m2",
    "build_vae",
]
