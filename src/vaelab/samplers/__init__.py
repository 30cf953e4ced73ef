"""Samplers: q(z|x), from features to a posterior that can be drawn from by reparameterisation."""

from vaelab.samplers.base import Sampler
from vaelab.samplers.deterministic import Delta, DeterministicSampler
from vaelab.samplers.gaussian import GaussianSampler

__all__ = ["Delta", "DeterministicSampler", "GaussianSampler", "Sampler"]
