"""What every sampler promises, and the layer that turns features into posterior parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import Distribution


class Sampler(nn.Module):
    """q(z|x): features (B, *in_shape) -> a distribution of batch shape (B,) and event shape `latent_shape`."""

    latent_shape: tuple[int, ...]

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
