"""What every sampler promises, and the layer that turns features into posterior parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import Distribution


class Sampler(nn.Module):
    """q(z|x): features (B, *in_shape) -> a distribution of batch shape (B,) and event shape `latent_shape`.

    The distribution's `mean` is a point estimate of z that draws no noise.

    Attributes:
        latent_shape: shape of z, (D,) or (D, h, w).
        space: where z lies; a prior must be a density on the same space.
        remedy: a prior to choose for this space.
    """

    latent_shape: tuple[int, ...]
    space: str = "Euclidean space"
    remedy: str = "model/prior=standard_normal"

    def forward(self, features: Tensor) -> Distribution:
        """Returns the posterior of every example in the batch."""
        raise NotImplementedError


def head(in_shape: Sequence[int], latent_shape: Sequence[int]) -> nn.Module:
    """Returns the layer from features to one posterior parameter: dense for vectors, a 1x1 convolution for maps.

    Raises:
        ValueError: if a latent map is asked of features that are no map, or one of another size.
    """
    if len(latent_shape) == 1:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), latent_shape[0]))
    if len(in_shape) != 3 or tuple(in_shape[1:]) != tuple(latent_shape[1:]):
        raise ValueError(
            f"latents of shape {tuple(latent_shape)} need an encoder that ends in a map of that height and width, but "
            f"this one ends in features of shape {tuple(in_shape)}"
        )
    return nn.Conv2d(in_shape[0], latent_shape[0], 1)
