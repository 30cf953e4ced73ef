"""Bernoulli prior: binary codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent

from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class BernoulliPrior(Prior):
    """p(z) = prod_i Bernoulli(z_i; pi_i) with pi_i = 1/2, or `learned` from there.

    Args:
        latent_shape: (D,) or (D, h, w).
        learned: whether the probabilities are learned.
    """

    space = "binary vectors"
    remedy = "model/sampler=bernoulli"
    logits: Tensor

    def __init__(self, *, latent_shape: Sequence[int], learned: bool = False) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        logits = torch.zeros(self.latent_shape)
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    def forward(self) -> Independent:
        """Returns the Bernoullis, of event shape `latent_shape`."""
        bernoulli = Bernoulli(logits=at_least_float32(self.logits), validate_args=False)
        return Independent(bernoulli, len(self.latent_shape), validate_args=False)
