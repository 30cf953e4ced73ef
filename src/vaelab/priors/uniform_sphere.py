"""Uniform prior on the unit sphere (Davidson et al. 2018, "Hyperspherical variational auto-encoders")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent

from vaelab.distributions import ChannelsFirst, UniformSphere
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class UniformSpherePrior(Prior):
    """p(z) = Gamma(D/2) / (2 pi^(D/2)) for unit vectors z in D dimensions, a density by area (section 3.2).

    Of a latent map every position has a unit vector of its own along the channels.

    Args:
        latent_shape: (D,) or (D, h, w), with D at least 2.

    Raises:
        ValueError: for fewer than 2 dimensions.
    """

    space = "the unit sphere"
    remedy = "model/sampler=von_mises_fisher"
    center: Tensor

    def __init__(self, *, latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        size, *positions = latent_shape
        if size < 2:
            raise ValueError(f"latent_dim must be at least 2 for unit vectors, but is {size}")
        self.register_buffer("center", torch.zeros(*positions, size), persistent=False)

    def forward(self) -> ChannelsFirst:
        """Returns the uniform distribution, of event shape `latent_shape`."""
        sphere = UniformSphere(at_least_float32(self.center))
        return ChannelsFirst(Independent(sphere, len(self.latent_shape) - 1, validate_args=False), parts=1)
