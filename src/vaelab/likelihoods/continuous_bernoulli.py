"""Continuous Bernoulli likelihood: the Bernoulli's formula with the constant that makes it a density on [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.nn.functional import softplus

from vaelab.likelihoods.base import UNIT_REMEDY, Likelihood
from vaelab.numerics import at_least_float32

SERIES_BELOW = 0.5  # |logit| below which power series replace quotients of the kind 0 / 0


class ContinuousBernoulli(Distribution):
    """p(x) = C(l) sigmoid(l)^x sigmoid(-l)^(1-x) on [0, 1], with C(l) = l / tanh(l / 2) and C(0) = 2.

    Why not the one of torch: it computes C from a probability clamped to within 1e-7 of 0 and 1, so that in float32 its
    density integrates to 0.80 at a logit of 20 and to 0.16 at 100, and its mean stops at 0.937. As a function of the
    logit, C needs no clamp.

    Args:
        logits: l, of any shape.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns l x - softplus(l) + log C(l) in nats, for every value."""
        return self.logits * value - softplus(self.logits) + self.log_normalizer

    @property
    def log_normalizer(self) -> Tensor:
        """log C(l)."""
        near, far = self._near_and_far
        u = (near / 2).square()
        series = math.log(2) + u * (1 / 3 - u * (7 / 90 - u * (62 / 2835)))
        return torch.where(self._is_near, series, far.abs().log() - (far.abs() / 2).tanh().log())

    @property
    def mean(self) -> Tensor:
        """1 / 2 + 1 / (2 tanh(l / 2)) - 1 / l."""
        near, far = self._near_and_far
        series = near * (1 / 12 - near.square() * (1 / 720 - near.square() / 30240))
        return 0.5 + torch.where(self._is_near, series, 0.5 / (far / 2).tanh() - 1 / far)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws x by inverting F(x) = (1 - exp(-a x)) / (1 - exp(-a)) with a = |l|, and mirrors it where l > 0."""
        with torch.no_grad():
            a = self.logits.abs().clamp(min=1e-6)  # there the density is flat to within 1e-6
            u = torch.rand((*sample_shape, *self.batch_shape), dtype=a.dtype, device=a.device)
            x = (-torch.log1p(u * torch.expm1(-a)) / a).clamp(0, 1)
            return torch.where(self.logits > 0, 1 - x, x)

    @property
    def _is_near(self) -> Tensor:
        return self.logits.abs() < SERIES_BELOW

    @property
    def _near_and_far(self) -> tuple[Tensor, Tensor]:
        # Each branch of a `where` gets harmless numbers in the places of the other, lest its gradient there be NaN.
        return torch.where(self._is_near, self.logits, 0.0), torch.where(self._is_near, 1.0, self.logits)


class ContinuousBernoulliLikelihood(Likelihood):
    """p(x|z) = prod_i C(l_i) lambda_i^x_i (1 - lambda_i)^(1 - x_i), lambda = sigmoid(l), with logits l(z).

    C = 2 artanh(1 - 2 lambda) / (1 - 2 lambda) = l / tanh(l / 2) makes it a density on [0, 1] (Loaiza-Ganem &
    Cunningham 2019, "The continuous Bernoulli: fixing a pervasive error in variational autoencoders", section 3). Its
    mean is not lambda. Binary data can be scored too, but has no density: the Bernoulli is the right choice for it.
    """

    supports = ("binary", "levels", "unit")
    remedy = UNIT_REMEDY

    def forward(self, params: Tensor) -> Independent:
        """Maps logits (B, C, H, W) to the continuous Bernoulli."""
        return Independent(ContinuousBernoulli(at_least_float32(params)), 3, validate_args=False)
