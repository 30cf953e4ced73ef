"""Discretised logistic likelihood: the mass that a logistic density puts on the bin of every grey level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.nn.functional import logsigmoid

from vaelab.likelihoods.base import scale_from
from vaelab.likelihoods.discrete import DiscreteLikelihood, level_of

# Smallest scale, in levels: 0.9999 of the mass can lie on one level. (PixelCNN++ stops at 0.12 levels of 256.)
MIN_SCALE = 0.05


class DiscretizedLogistic(Distribution):
    """P(x = k / (L - 1)) = sigmoid((k + 1/2 - u) / w) - sigmoid((k - 1/2 - u) / w), with u = (L - 1) mu, w = (L - 1) s.

    Level 0 also takes the tail below it and level L - 1 the tail above, so that the probabilities sum to one.

    Args:
        location: mu, in units of x.
        scale: s, in units of x.
        levels: L.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "location": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.unit_interval

    def __init__(self, location: Tensor, scale: Tensor, levels: int) -> None:
        self.location, self.scale, self.levels = location, scale, levels
        super().__init__(location.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P(x) in nats, for every value.

        sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) has no cancellation: its log is finite
        wherever mu and s are, without PixelCNN++'s second formula for small probabilities.
        """
        k = level_of(value, self.levels)
        offset = k - (self.levels - 1) * self.location
        width = (self.levels - 1) * self.scale
        lowest, highest = k == 0, k == self.levels - 1
        below_upper_edge = torch.where(highest, 0.0, logsigmoid((offset + 0.5) / width))
        above_lower_edge = torch.where(lowest, 0.0, logsigmoid(-(offset - 0.5) / width))
        between = torch.where(lowest | highest, 0.0, (-torch.expm1(-1 / width)).log())
        return below_upper_edge + above_lower_edge + between

    @property
    def mean(self) -> Tensor:
        """sum_k P(X >= k / (L - 1)) / (L - 1) over k = 1 ... L - 1: exact, one level after the other to save memory."""
        step = 1 / (self.levels - 1)
        edges = ((k - 0.5) * step for k in range(1, self.levels))
        mean = torch.zeros_like(self.location)
        for edge in edges:
            mean = mean + step * torch.sigmoid((self.location - edge) / self.scale)
        return mean

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws from the logistic density and rounds to the nearest level."""
        with torch.no_grad():
            shape = (*sample_shape, *self.batch_shape)
            u = torch.rand(shape, dtype=self.location.dtype, device=self.location.device)
            x = self.location + self.scale * torch.logit(u)
            return level_of(x, self.levels).clamp(0, self.levels - 1) / (self.levels - 1)


class DiscretizedLogisticLikelihood(DiscreteLikelihood):
    """P(x|z) = prod_i F((x_i + h/2 - mu_i) / s_i) - F((x_i - h/2 - mu_i) / s_i), F = sigmoid, h = 1 / (L - 1).

    The decoder emits mu and log s for every value (P = 2), in units of x. This is one component of Salimans, Karpathy,
    Chen & Kingma 2017, "PixelCNN++", equation 2 (there in units of levels); Kingma et al. 2016, "Improved variational
    inference with inverse autoregressive flow", use it in a VAE. The levels 0 and L - 1 take the tails.

    Args:
        levels: L, the number of grey levels of the data (256 for 8 bits).

    Raises:
        ValueError: for floating-point data (None) or fewer than two levels.
    """

    params_per_channel = 2

    def forward(self, params: Tensor) -> Independent:
        """Maps locations and log scales (B, 2 * C, H, W) to probabilities of the L levels."""
        location, log_scale = self.split(params)
        scale = scale_from(log_scale, floor=MIN_SCALE / (self.levels - 1))
        return Independent(DiscretizedLogistic(location, scale, self.levels), 3, validate_args=False)
