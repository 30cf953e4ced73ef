"""Bernoulli likelihood for binary data, and the pseudo-likelihood of grey values read as probabilities."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Bernoulli, Independent
from torch.nn.functional import binary_cross_entropy_with_logits

from vaelab.likelihoods.base import Likelihood
from vaelab.numerics import at_least_float32


class BernoulliLikelihood(Likelihood):
    """p(x|z) = prod_i pi_i^x_i (1 - pi_i)^(1 - x_i), with logits = log(pi / (1 - pi)) from the decoder.

    For x in {0, 1} this is a probability. For grey values in [0, 1] it is the expected log-probability of an image
    binarised at random with those values (a pseudo-likelihood: not normalised over [0, 1]).
    """

    supports = ("binary", "levels", "unit")
    probability_of = ("binary",)
    remedy = "rescale it to [0, 1] (data.normalize=standard then serves the encoder), or use model/likelihood=gaussian"

    def forward(self, params: Tensor) -> Independent:
        """Maps logits (B, C, H, W) to Bernoulli(sigmoid(logits))."""
        return Independent(Bernoulli(logits=at_least_float32(params), validate_args=False), 3, validate_args=False)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns x . logits - sum softplus(logits) in nats, (K, B): as `forward`, in one kernel instead of many."""
        logits = at_least_float32(params)
        return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").flatten(-3).sum(-1)
