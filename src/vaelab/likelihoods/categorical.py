"""Categorical likelihood: a free probability for every grey level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, constraints
from torch.nn.functional import cross_entropy

from vaelab.likelihoods.discrete import DiscreteLikelihood, level_of
from vaelab.numerics import at_least_float32


class GreyLevels(Categorical):
    """A categorical distribution whose outcome k reads as the grey value x = k / (L - 1); `logits` are (..., L)."""

    support = constraints.unit_interval

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P(k = (L - 1) x) in nats, for every value."""
        return super().log_prob(level_of(value, self.logits.shape[-1]))

    @property
    def mean(self) -> Tensor:
        """sum_k P(k) k / (L - 1)."""
        levels = self.logits.shape[-1]
        return self.probs @ (torch.arange(levels).to(self.probs) / (levels - 1))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws k, and returns k / (L - 1)."""
        return super().sample(torch.Size(sample_shape)).to(self.logits) / (self.logits.shape[-1] - 1)


class CategoricalLikelihood(DiscreteLikelihood):
    """P(x|z) = prod_i softmax(l_i(z))_{k_i} with k = (L - 1) x.

    The decoder emits L logits l for every value (P = L). The softmax over the levels of a value is that of van den
    Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks", section 3; here the values are
    independent given z. It does not know that neighbouring levels look alike, and needs a decoder with L outputs for
    every value.

    Args:
        levels: L, the number of grey levels of the data (256 for 8 bits).

    Raises:
        ValueError: for floating-point data (None) or fewer than two levels.
    """

    def __init__(self, *, levels: int | None) -> None:
        super().__init__(levels=levels)
        self.params_per_channel = self.levels

    def forward(self, params: Tensor) -> Independent:
        """Maps logits (B, L * C, H, W) to probabilities of the L levels."""
        logits = self.split(params).movedim(0, -1)
        return Independent(GreyLevels(logits=logits, validate_args=False), 3, validate_args=False)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns sum log softmax(l)_k in nats, (K, B): as `forward`, in one kernel that leaves the logits in place."""
        batch = params.shape[:2]
        logits = at_least_float32(params).unflatten(2, (self.levels, -1)).flatten(0, 1)  # (K * B, L, C, H, W)
        k = level_of(x, self.levels).long().expand(*batch, *x.shape[1:]).flatten(0, 1)  # (K * B, C, H, W)
        return -cross_entropy(logits, k, reduction="none").flatten(1).sum(-1).unflatten(0, batch)
