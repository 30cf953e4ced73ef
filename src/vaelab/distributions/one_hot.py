"""One-hot vectors and their relaxation, the Concrete distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, OneHotCategorical, constraints, register_kl


def gumbel_like(x: Tensor) -> Tensor:
    """Draws standard Gumbel noise -log(-log u), shaped like x."""
    finfo = torch.finfo(x.dtype)
    return -torch.rand_like(x).clamp(finfo.tiny, 1 - finfo.eps).log().neg().log()


class OneHot(OneHotCategorical):
    """p(z) = prod_c pi_c^z_c for one-hot z.

    torch's log-probability picks a class by `argmax`, which has no gradient; sum_c z_c log pi_c is the same number and
    passes the gradient of a straight-through draw on.

    Args:
        logits: log pi_c up to a constant, (..., n).
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z), (..., B), for one-hot z (..., B, n)."""
        return (value * self.logits).sum(-1)


@register_kl(OneHot, OneHot)
def _kl_one_hot(q: OneHot, p: OneHot) -> Tensor:
    return (q.probs * (q.logits - p.logits)).sum(-1)


class RelaxedOneHot(Distribution):
    """z = softmax((logits + g) / lambda) with Gumbel noise g: a density on the simplex of n classes.

    p(z) = (n-1)! lambda^(n-1) prod_c pi_c z_c^(-lambda-1) / (sum_c pi_c z_c^-lambda)^n
    (Maddison, Mnih & Teh 2017, "The Concrete distribution", definition 1; Jang, Gu & Poole 2017, equations 2 and 3).

    The density is by z_1 ... z_(n-1). torch's RelaxedOneHotCategorical is the same but lets a coordinate underflow to
    0, where the density is no number; here draws are cut off at the smallest normal number.

    Args:
        temperature: lambda, above 0.
        logits: log pi_c up to a constant, (..., n).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor) -> None:
        self.temperature = temperature
        self.logits = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """pi, (B, n): the probability that a class is the largest; a point estimate, E[z] itself has no closed form."""
        return self.logits.exp()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, n) by reparameterisation."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        z = ((logits + gumbel_like(logits)) / self.temperature).softmax(-1)
        return z.clamp(min=torch.finfo(z.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (..., B), for z (..., B, n) inside the simplex."""
        n, log_z = value.shape[-1], value.log()
        score = self.logits - self.temperature * log_z  # (..., B, n)
        constant = math.lgamma(n) + (n - 1) * math.log(self.temperature)
        return constant + (score - log_z).sum(-1) - n * score.logsumexp(-1)
