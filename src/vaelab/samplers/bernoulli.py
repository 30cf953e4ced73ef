"""Bernoulli posterior: binary codes, drawn straight-through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, register_kl
from torch.nn.functional import softplus

from vaelab.checks import positive
from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head


class StraightThroughBernoulli(Bernoulli):
    """Exact draws from {0, 1} with the gradient of sigmoid((logits + g) / lambda), g a logistic draw.

    This is the binary Gumbel-softmax (Jang, Gu & Poole 2017, section 2.2; Maddison, Mnih & Teh 2017, appendix B).

    Args:
        temperature: lambda, above 0.
        logits: log(pi / (1 - pi)).
    """

    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor) -> None:
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws zeros and ones, (*sample_shape, B, ...)."""
        finfo = torch.finfo(self.logits.dtype)
        uniform = torch.rand_like(self.logits.expand(*sample_shape, *self.logits.shape))
        noisy = self.logits + uniform.clamp(finfo.tiny, 1 - finfo.eps).logit()
        soft = (noisy / self.temperature).sigmoid()
        return (noisy > 0).to(soft) + (soft - soft.detach())  # exactly 0 or 1: the bracket is 0


@register_kl(StraightThroughBernoulli, Bernoulli)
def _kl_bernoulli(q: StraightThroughBernoulli, p: Bernoulli) -> Tensor:
    # As torch's, which does not broadcast the two against each other.
    return q.probs * (q.logits - p.logits) + softplus(p.logits) - softplus(q.logits)


class BernoulliSampler(Sampler):
    """q(z|x) = prod_i Bernoulli(z_i; sigmoid(l_i(x))), z in {0, 1}^D.

    Draws are exactly binary, so that the ELBO is the true one of the discrete model, with a closed KL; its gradient by
    the encoder is biased (that of the binary Gumbel-softmax). For a relaxed binary variable, choose
    model/sampler=categorical with two classes and straight_through=false. The `mean` holds the probabilities of a one.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).
        temperature: lambda, constant.

    Raises:
        ValueError: for a temperature that is not above 0, or a latent map that the features cannot give.
    """

    space = "binary vectors"
    remedy = "model/prior=bernoulli"

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int], temperature: float = 0.5) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.temperature = positive("temperature", temperature)
        self.logits = head(in_shape, latent_shape)

    def forward(self, features: Tensor) -> Independent:
        """Maps features (B, *in_shape) to Bernoullis of batch shape (B,) and event shape `latent_shape`."""
        bernoulli = StraightThroughBernoulli(self.temperature, at_least_float32(self.logits(features)))
        return Independent(bernoulli, len(self.latent_shape), validate_args=False)
