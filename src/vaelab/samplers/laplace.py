"""Laplace posterior (a location-scale family of Kingma & Welling 2014, section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Independent, Laplace

from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head
from vaelab.samplers.gaussian import LOG_STD_RANGE


class LaplaceSampler(Sampler):
    """q(z|x) = prod_i exp(-|z_i - mu_i(x)| / b_i(x)) / (2 b_i(x)), drawn as z = mu - b sign(u) log(1 - 2 |u|).

    u is uniform on (-1/2, 1/2). The network emits log b; the standard deviation is b sqrt(2).

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).

    Raises:
        ValueError: for a latent map that the features cannot give.
    """

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.mean = head(in_shape, latent_shape)
        self.log_scale = head(in_shape, latent_shape)

    def forward(self, features: Tensor) -> Independent:
        """Maps features (B, *in_shape) to Laplace(mu, b) of batch shape (B,) and event shape `latent_shape`."""
        scale = at_least_float32(self.log_scale(features)).clamp(*LOG_STD_RANGE).exp()
        laplace = Laplace(at_least_float32(self.mean(features)), scale, validate_args=False)
        return Independent(laplace, len(self.latent_shape), validate_args=False)
