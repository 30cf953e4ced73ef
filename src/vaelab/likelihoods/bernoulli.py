"""Bernoulli likelihood for binary data, and the pseudo-likelihood of grey values read as probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent
from torch.nn.functional import binary_cross_entropy_with_logits

from vaelab.likelihoods.base import Likelihood
from vaelab.numerics import at_least_float32, inline_exp, scores_in_one_pass

FACTORS = 112  # at the most: 2^112 and 2^-112 are far from the largest and smallest numbers of float32


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
        if logits.device.type == "cpu" and not (torch.is_grad_enabled() and logits.requires_grad):
            return log_prob_without_gradient(logits.flatten(-3), x.flatten(-3))
        return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").flatten(-3).sum(-1)


def log_prob_without_gradient(logits: Tensor, x: Tensor) -> Tensor:
    """Returns x . logits - sum softplus(logits) in nats, (K, B), for logits (K, B, D) and x (B, D), in half the time.

    With a = |logits| it is (x - 1/2) . logits - sum(a) / 2 - sum log(1 + exp(-a)). 1 + exp(-a) is at most 2, so that a
    hundred of them can be multiplied before one logarithm is taken: on a CPU the logarithms cost the most. Compiled,
    all of it is one pass over the logits; not compiled, its inverse sigmoid(a) takes the fewest passes.
    """
    factors = next(n for n in range(FACTORS, 0, -1) if logits.shape[-1] % n == 0)
    if torch.compiler.is_compiling():
        logits, x = (values.unflatten(-1, (-1, factors)) for values in (logits, x - 0.5))
        a = logits.abs()
        exp = inline_exp if scores_in_one_pass(a) else torch.exp
        return ((x * logits - 0.5 * a).sum(-1) - (1 + exp(-a)).prod(-1).log()).sum(-1)
    a = logits.abs()
    linear = (logits[:, 0] @ (x[0] - 0.5)).unsqueeze(1) if len(x) == 1 else (logits * (x - 0.5)).sum(-1)
    linear.sub_(a.sum(-1), alpha=0.5)
    return linear.add_(a.sigmoid_().unflatten(-1, (-1, factors)).prod(-1).log_().sum(-1))
