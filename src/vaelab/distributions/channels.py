"""Events whose parts (one-hot vectors, unit vectors) lie along the channels of a latent vector or map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence, register_kl


class ChannelsFirst(Distribution):
    """A distribution over events (h, w, *parts), shown as events (D, h, w) with D = prod(parts); (D,) without h and w.

    Moving axes changes neither the density nor the KL.

    Args:
        base: the distribution over (*positions, *parts).
        parts: number of event dimensions on the right that become the channels.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: Distribution, parts: int) -> None:
        self.base = base
        split = len(base.event_shape) - parts
        self.positions, self.parts = base.event_shape[:split], base.event_shape[split:]
        event_shape = torch.Size((self.parts.numel(), *self.positions))
        super().__init__(base.batch_shape, event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base can be drawn from by reparameterisation."""
        return self.base.has_rsample

    @property
    def mean(self) -> Tensor:
        """The base's mean, (B, D, *positions)."""
        return self._pack(self.base.mean)

    @property
    def variance(self) -> Tensor:
        """The base's variance, (B, D, *positions)."""
        return self._pack(self.base.variance)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, D, *positions) by reparameterisation."""
        return self._pack(self.base.rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, D, *positions)."""
        return self._pack(self.base.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (..., B), for z (..., B, D, *positions)."""
        parts_last = value.movedim(-1 - len(self.positions), -1)
        return self.base.log_prob(parts_last.unflatten(-1, self.parts))

    def entropy(self) -> Tensor:
        """Returns the entropy in nats, (B,)."""
        return self.base.entropy()

    def _pack(self, parts_last: Tensor) -> Tensor:
        return parts_last.flatten(-len(self.parts)).movedim(-1, -1 - len(self.positions))


@register_kl(ChannelsFirst, ChannelsFirst)
def _kl_channels(q: ChannelsFirst, p: ChannelsFirst) -> Tensor:
    return kl_divergence(q.base, p.base)
