"""Distributions over maps that a network scores at once and draws one position after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints


class RasterNetwork(nn.Module):
    """A network from maps to maps whose output at a position depends on the positions before it only."""

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        """Maps x (B, in_channels, h, w), and a map (B, F, h, w) that steers it, to (B, out_channels, h, w)."""
        raise NotImplementedError

    def generate(
        self, draw: Callable[[Tensor, int, int], Tensor], size: Sequence[int], s: Tensor | None = None
    ) -> Tensor:
        """Draws x (B, in_channels, h, w), one position after the other.

        Args:
            draw: called with the output at one position (B, out_channels, 1, 1), its row and its column; returns x
                there, (B, in_channels, 1, 1).
            size: B, h, w.
            s: a map (B, F, h, w) that steers the network, or None.
        """
        raise NotImplementedError


class Conditionals(Protocol):
    """The conditional distributions of a map's positions given those before."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p in nats, (N,), of maps (N, *event_shape)."""
        ...

    def draw(self, count: int) -> Tensor:
        """Draws maps (count, *event_shape)."""
        ...


class Autoregressive(Distribution):
    """p(z) = prod_i p(z_i | z_<i) over the positions i of a map in raster order, of empty batch shape.

    Args:
        conditionals: p(z_i | z_<i).
        event_shape: shape of z.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, conditionals: Conditionals, event_shape: Sequence[int]) -> None:
        self.conditionals = conditionals
        super().__init__(event_shape=torch.Size(event_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (...), for z (..., *event_shape), all positions at once."""
        batch = value.shape[: value.ndim - len(self.event_shape)]
        return self.conditionals.log_prob(value.reshape(-1, *self.event_shape)).reshape(batch)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z (*sample_shape, *event_shape), one position after the other."""
        shape = torch.Size(sample_shape)
        return self.conditionals.draw(shape.numel()).reshape(*shape, *self.event_shape)
