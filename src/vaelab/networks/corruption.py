"""Corruptions of what an encoder sees while training: the denoising criterion (Vincent et al. 2008)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vaelab.checks import fraction, positive


class Corruption(nn.Module):
    """x -> a corrupted copy while training, x itself in evaluation. `corrupt` corrupts in both.

    What is learned is log p(x|z) with z from q(z|corrupted x): of a VAE, the bound of the denoising criterion (Im et
    al. 2017, equation 6). In evaluation the encoder sees the clean data, and the bound is the usual one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (B, C, H, W), corrupted while training."""
        return self.corrupt(x) if self.training else x

    def corrupt(self, x: Tensor) -> Tensor:
        """Returns a corrupted copy of x (B, C, H, W)."""
        raise NotImplementedError


class NoCorruption(Corruption):
    """Leaves the data as it is."""

    def corrupt(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x


class GaussianNoise(Corruption):
    """x + std * eps, eps ~ N(0, I), not cut off at the range of the data (Vincent et al. 2010, section 3.3).

    Args:
        std: standard deviation of the noise, in units of the data.

    Raises:
        ValueError: for a `std` that is not above 0.
    """

    def __init__(self, *, std: float = 0.3) -> None:
        super().__init__()
        self.std = positive("std", std)

    def corrupt(self, x: Tensor) -> Tensor:
        """Returns a corrupted copy of x (B, C, H, W)."""
        return x + self.std * torch.randn_like(x)


class Masking(Corruption):
    """Sets every value to 0 with a probability of its own, and does not scale the others (Vincent et al. 2010).

    Args:
        probability: of being set to 0, in [0, 1).

    Raises:
        ValueError: for a `probability` outside [0, 1).
    """

    def __init__(self, *, probability: float = 0.3) -> None:
        super().__init__()
        self.probability = fraction("probability", probability)

    def corrupt(self, x: Tensor) -> Tensor:
        """Returns a corrupted copy of x (B, C, H, W)."""
        return x * (torch.rand_like(x) >= self.probability)


class SaltAndPepper(Corruption):
    """Sets every value with a probability of its own to `low` or to `high`, both alike (Vincent et al. 2010).

    Args:
        probability: of being set, in [0, 1).
        low: smallest value of the data.
        high: largest value of the data.

    Raises:
        ValueError: for a `probability` outside [0, 1), or a `high` that is not above `low`.
    """

    def __init__(self, *, probability: float = 0.2, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.probability = fraction("probability", probability)
        if not low < high:
            raise ValueError(f"high must be above low={low}, but is {high}")
        self.low, self.high = low, high

    def corrupt(self, x: Tensor) -> Tensor:
        """Returns a corrupted copy of x (B, C, H, W)."""
        u = torch.rand_like(x)
        x = torch.where(u < self.probability / 2, x.new_tensor(self.low), x)
        return torch.where(u > 1 - self.probability / 2, x.new_tensor(self.high), x)
