"""Deterministic code: the plain autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head


class PointMass(Distribution):
    """All mass on one point; `event_dims` counts the event dimensions on the right of `point` (B, *event)."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, point: Tensor, event_dims: int) -> None:
        self.point = point
        split = point.ndim - event_dims
        super().__init__(point.shape[:split], point.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The point itself, (B, *event)."""
        return self.point

    @property
    def variance(self) -> Tensor:
        """Zeros, (B, *event)."""
        return torch.zeros_like(self.point)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Repeats the point, without its gradient: (*sample_shape, B, *event)."""
        return self.rsample(sample_shape).detach()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Repeats the point: (*sample_shape, B, *event)."""
        return self.point.expand(*sample_shape, *self.point.shape)


class Delta(PointMass):
    """All mass on one point among all vectors, where it has no density.

    `log_prob` and the KL to any prior count as 0, so that an autoencoder's "ELBO" is its reconstruction term alone; it
    is not a bound on log p(x).
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Zeros, (..., B): see the class."""
        return value.new_zeros(value.shape[: value.ndim - len(self.event_shape)])


@register_kl(Delta, Distribution)
def _kl_delta(q: Delta, p: Distribution) -> Tensor:
    return q.point.new_zeros(q.batch_shape)


class DeterministicSampler(Sampler):
    """z = f(x), without noise or KL.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).

    Raises:
        ValueError: for a latent map that the features cannot give.
    """

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.code = head(in_shape, latent_shape)

    def forward(self, features: Tensor) -> Delta:
        """Maps features (B, *in_shape) to point masses of batch shape (B,) and event shape `latent_shape`."""
        return Delta(at_least_float32(self.code(features)), len(self.latent_shape))
