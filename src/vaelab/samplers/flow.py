"""What the posteriors that are normalising flows share: noise in, and what their networks know of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.checks import positive_int
from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head
from vaelab.samplers.gaussian import GaussianSampler


class FlowSampler(Sampler):
    """q(z|x): a diagonal Gaussian N(mu(x), sigma(x)^2) and bijections that know h(x), a linear map of the features.

    Latent maps are transformed as one vector of n = D * h * w numbers. There is no closed KL: it is estimated by
    log q(z|x) - log p(z) of the draws. The `mean` is the image of the Gaussian's mean, a point estimate.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).
        context: length of h.

    Raises:
        ValueError: for a `context` below 1, or a latent map that the features cannot give.
    """

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int], context: int) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.size = math.prod(latent_shape)
        self.gaussian = GaussianSampler(in_shape=in_shape, latent_shape=latent_shape)
        self.context = head(in_shape, (positive_int("context", context),))

    def noise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mu and sigma, (B, n) each."""
        normal = self.gaussian(features).base_dist
        return normal.mean.flatten(1), normal.stddev.flatten(1)

    def context_of(self, features: Tensor) -> Tensor:
        """Returns h, (B, context)."""
        return at_least_float32(self.context(features))


def diagonal(mean: Tensor, std: Tensor) -> Independent:
    """Returns N(mean, std^2) over vectors, for mean and std (B, n)."""
    return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)
