"""Diagonal Gaussian posterior (Kingma & Welling 2014, "Auto-encoding variational Bayes", equations 9 and 10)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.checks import one_of
from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head

# exp(-10) <= sigma <= exp(10): wide enough never to bind on a healthy run, narrow enough never to overflow float32.
LOG_STD_RANGE = (-10.0, 10.0)


class GaussianSampler(Sampler):
    """q(z|x) = N(z; mu(x), diag sigma(x)^2), drawn as z = mu + sigma * eps with eps ~ N(0, I).

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).
        parameterization: what the network emits: `log_variance` (sigma = exp(s / 2)) or `log_std` (sigma = exp(s)).

    Raises:
        ValueError: for an unknown parameterization, or a latent map that the features cannot give.
    """

    def __init__(
        self, *, in_shape: Sequence[int], latent_shape: Sequence[int], parameterization: str = "log_variance"
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        one_of("parameterization", parameterization, ("log_variance", "log_std"))
        self.log_std_per_unit = 0.5 if parameterization == "log_variance" else 1.0
        self.mean = head(in_shape, latent_shape)
        self.log_scale = head(in_shape, latent_shape)

    def forward(self, features: Tensor) -> Independent:
        """Maps features (B, *in_shape) to N(mu, sigma^2) of batch shape (B,) and event shape `latent_shape`."""
        mean = at_least_float32(self.mean(features))
        log_std = self.log_std_per_unit * at_least_float32(self.log_scale(features))
        std = log_std.clamp(*LOG_STD_RANGE).exp()
        return Independent(Normal(mean, std, validate_args=False), len(self.latent_shape), validate_args=False)
