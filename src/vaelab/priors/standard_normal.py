"""Standard normal prior (Kingma & Welling 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.priors.base import Prior


class StandardNormalPrior(Prior):
    """p(z) = N(z; 0, I).

    Args:
        latent_shape: (D,) or (D, h, w).
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, *, latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.register_buffer("loc", torch.zeros(self.latent_shape), persistent=False)
        self.register_buffer("scale", torch.ones(self.latent_shape), persistent=False)

    def forward(self) -> Independent:
        """Returns N(0, I) of event shape `latent_shape`."""
        normal = Normal(self.loc, self.scale, validate_args=False)
        return Independent(normal, len(self.latent_shape), validate_args=False)
