"""Models: one file per factorisation (which random variables there are, and who depends on whom)."""

from vaelab.models.base import Model
from vaelab.models.build import build_vae
from vaelab.models.terms import Latent, Terms
from vaelab.models.vae import VAE

__all__ = ["VAE", "Latent", "Model", "Terms", "build_vae"]
