"""Gaussian likelihood with one standard deviation for every value: fixed, learned or optimal."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaelab.checks import one_of, positive
from vaelab.likelihoods.base import Likelihood
from vaelab.numerics import at_least_float32

MIN_SIGMA = 1e-3
SLOWEST_RATE = 0.01  # the running variance averages over about the last 100 batches


class GaussianLikelihood(Likelihood):
    """p(x|z) = prod_i N(x_i; mu_i(z), sigma^2), with mu from the decoder and one sigma for all values.

    `scale` says where sigma comes from: `fixed` (the argument), `learned` (a parameter that starts there) or
    `optimal` (Rybkin, Daniilidis & Levine 2021, "Simple and effective VAE training with calibrated decoders",
    equation 9: sigma^2 = the mean squared error of the batch, while training). Deviation from the paper: evaluation does
    not look at the data it scores but uses the running average of the training batches, so that the density is one.

    Args:
        scale: fixed, learned or optimal.
        sigma: standard deviation, in units of the data.

    Raises:
        ValueError: for an unknown `scale` or a `sigma` that is not above 0.
    """

    supports = ("binary", "levels", "unit", "real")
    remedy = ""
    log_sigma: Tensor
    running_variance: Tensor
    batches: Tensor

    def __init__(self, *, scale: str = "optimal", sigma: float = 1.0) -> None:
        super().__init__()
        self.scale = one_of("scale", scale, ("fixed", "learned", "optimal"))
        positive("sigma", sigma)
        if scale == "learned":
            self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)))
        elif scale == "fixed":
            self.register_buffer("log_sigma", torch.tensor(math.log(sigma)))
        else:
            self.register_buffer("running_variance", torch.tensor(sigma**2))
            self.register_buffer("batches", torch.tensor(0.0))

    @property
    def sigma(self) -> Tensor:
        """The standard deviation used for evaluation, ()."""
        if self.scale == "optimal":
            return self.running_variance.sqrt().clamp(min=MIN_SIGMA)
        return self.log_sigma.exp().clamp(min=MIN_SIGMA)

    def forward(self, params: Tensor) -> Independent:
        """Maps means (B, C, H, W) to N(mean, sigma^2)."""
        mean = at_least_float32(params)
        return Independent(Normal(mean, self.sigma.to(mean), validate_args=False), 3, validate_args=False)

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (K, B), for means (K, B, C, H, W) and data (B, C, H, W)."""
        if not (self.scale == "optimal" and self.training):
            return super().log_prob(params, x)
        mean = at_least_float32(params)
        # sigma is at its optimum, where the derivative by it vanishes: detaching it changes no gradient.
        variance = (x - mean).square().mean().detach()
        with torch.no_grad():
            self.batches += 1
            rate = (1 / self.batches).clamp(min=SLOWEST_RATE)
            self.running_variance += rate * (variance - self.running_variance)
        sigma = variance.sqrt().clamp(min=MIN_SIGMA)
        return Independent(Normal(mean, sigma, validate_args=False), 3, validate_args=False).log_prob(x)
