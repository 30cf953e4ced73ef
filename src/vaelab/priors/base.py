"""What every prior promises."""

from __future__ import annotations

from torch import nn
from torch.distributions import Distribution


class Prior(nn.Module):
    """p(z): a distribution of empty batch shape and event shape `latent_shape`."""

    latent_shape: tuple[int, ...]

    def forward(self) -> Distribution:
        """Returns p(z)."""
        raise NotImplementedError
