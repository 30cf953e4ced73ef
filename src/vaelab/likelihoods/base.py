"""What every likelihood promises."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution

# What values a data set may hold. `binary`: 0 or 1; `levels`: k / (L - 1) for k = 0 ... L - 1, such as 8-bit grey;
# `unit`: any number in [0, 1]; `real`: any number.


class Likelihood(nn.Module):
    """p(x|z): parameters (B, C * params_per_channel, H, W) -> a distribution over images (C, H, W).

    Attributes:
        params_per_channel: numbers the decoder must emit for every value of an image.
        supports: the kinds of data that this density can score.
        remedy: what to choose instead for data outside `supports`.
    """

    params_per_channel: ClassVar[int] = 1
    supports: ClassVar[tuple[str, ...]]
    remedy: ClassVar[str]

    def forward(self, params: Tensor) -> Distribution:
        """Returns p(x|z) of batch shape (B,) and event shape (C, H, W)."""
        raise NotImplementedError

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (K, B), for parameters (K, B, C * P, H, W) and data (B, C, H, W)."""
        return self(params).log_prob(x)

    def check_support(self, support: str) -> None:
        """Raises a ValueError if data of this kind lies outside the likelihood's support."""
        if support not in self.supports:
            raise ValueError(
                f"{type(self).__name__} scores {' or '.join(self.supports)} data, but this data is {support} "
                f"(values outside its support give a meaningless ELBO); {self.remedy}"
            )
