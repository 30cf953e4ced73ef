"""Priors: p(z)."""

from vaelab.priors.base import Prior
from vaelab.priors.standard_normal import StandardNormalPrior

__all__ = ["Prior", "StandardNormalPrior"]
