"""Distributions over the codes of a codebook, shown as distributions over the vectors that the codes stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


@runtime_checkable
class Codebook(Protocol):
    """What a prior over codes needs to know of the sampler.

    Attributes:
        num_codes: K; codes are the whole numbers below it.
        code_shape: shape of the codes of an example, (Q, h, w): Q at every position; (Q, 1, 1) for latent vectors.
    """

    num_codes: int
    code_shape: tuple[int, int, int]

    def codes(self, z: Tensor) -> Tensor:
        """Returns the codes (..., Q, h, w) of z (..., *latent_shape)."""
        ...

    def embed(self, codes: Tensor) -> Tensor:
        """Returns the z (..., *latent_shape) that codes (..., Q, h, w) stand for."""
        ...


class Coded(Distribution):
    """p(z) = P(c) for z = embed(c): a probability on a finite set, not a density.

    Args:
        base: P(c), of event shape `code_shape`; its draws are whole numbers.
        codes: z (..., *event_shape) -> c.
        embed: c -> z.
        event_shape: shape of z.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        base: Distribution,
        codes: Callable[[Tensor], Tensor],
        embed: Callable[[Tensor], Tensor],
        event_shape: Sequence[int],
    ) -> None:
        self.base, self.codes, self.embed = base, codes, embed
        super().__init__(base.batch_shape, torch.Size(event_shape), validate_args=False)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws codes and returns what they stand for, (*sample_shape, *event_shape)."""
        return self.embed(self.base.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P(codes(z)) in nats, (...), for z (..., *event_shape)."""
        return self.base.log_prob(self.codes(value))
