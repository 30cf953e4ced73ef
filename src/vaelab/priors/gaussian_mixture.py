"""Learned mixture of diagonal Gaussians (as in Tomczak & Welling 2018, section 3, and Jiang et al. 2017, VaDE)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaelab.checks import positive, positive_int
from vaelab.distributions import Mixture
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior

MIN_LOG_STD = -10.0


class GaussianMixturePrior(Prior):
    """p(z) = sum_c pi_c N(z; mu_c, diag sigma_c^2), with all of pi, mu and sigma learned.

    The means start as draws from N(0, spread^2), the rest at pi_c = 1/C and sigma_c = 1. The KL of a posterior is
    estimated by log q(z|x) - log p(z) of the draws. `forward().responsibilities(z)` is p(c|z).

    Args:
        latent_shape: (D,) or (D, h, w).
        components: C.
        spread: standard deviation of the means at the start.

    Raises:
        ValueError: for `components` below 1, or a `spread` that is not above 0.
    """

    def __init__(self, *, latent_shape: Sequence[int], components: int = 10, spread: float = 1.0) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        positive_int("components", components), positive("spread", spread)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(spread * torch.randn(components, *self.latent_shape))
        self.log_stds = nn.Parameter(torch.zeros(components, *self.latent_shape))

    def forward(self) -> Mixture:
        """Returns the mixture, of event shape `latent_shape`."""
        means, log_stds = at_least_float32(self.means), at_least_float32(self.log_stds)
        normal = Normal(means, log_stds.clamp(min=MIN_LOG_STD).exp(), validate_args=False)
        return Mixture(at_least_float32(self.logits), Independent(normal, len(self.latent_shape), validate_args=False))

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Fits the mixture by expectation maximisation (scikit-learn's, from k-means)."""
        count = len(self.logits)
        if len(z) < count:
            raise ValueError(
                f"{count} components cannot be fitted to {len(z)} codes; model.prior.components is too many"
            )
        fit = GaussianMixture(count, covariance_type="diag", reg_covar=1e-6, random_state=0).fit(
            z.flatten(1).cpu().double().numpy()
        )
        self.logits.copy_(torch.from_numpy(fit.weights_).log())
        self.means.copy_(torch.from_numpy(fit.means_).reshape(self.means.shape))
        self.log_stds.copy_(torch.from_numpy(fit.covariances_).log().div(2).reshape(self.log_stds.shape))
