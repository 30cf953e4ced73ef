"""What every likelihood promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from vaelab.numerics import at_least_float32

# What values a data set may hold. `binary`: 0 or 1; `levels`: k / (L - 1) for k = 0 ... L - 1, such as 8-bit grey;
# `unit`: any number in [0, 1]; `real`: any number.

UNIT_REMEDY = (
    "use data with values in [0, 1] (data.normalize=standard changes only what the encoder sees), "
    "or model/likelihood=gaussian"
)
MAX_LOG_SCALE = 10.0  # exp(10) = 22026: wide enough never to bind on a healthy run, narrow enough never to overflow


class Likelihood(nn.Module):
    """p(x|z): parameters (B, P * C, H, W) -> a distribution over images (C, H, W), with P = `params_per_channel`.

    The distribution has `log_prob` in nats, `mean` (the image E[x|z]) and `sample`, all in the data's own range.

    Layout: the decoder emits P images of C channels one after the other, one for each parameter: channel p * C + c
    holds parameter p of data channel c. `split` takes them apart.

    Attributes:
        params_per_channel: P, the numbers that the decoder must emit for every value of an image.
        supports: the kinds of data that this density can score.
        probability_of: the kinds of data of which `log_prob` is the log of a probability, so that `bits_per_dim` is
            true; of all others it is the log of a density, or of a pseudo-likelihood.
        remedy: what to choose instead for data outside `supports`.
    """

    params_per_channel: int = 1
    supports: ClassVar[tuple[str, ...]]
    probability_of: ClassVar[tuple[str, ...]] = ()
    remedy: ClassVar[str]

    def forward(self, params: Tensor) -> Distribution:
        """Returns p(x|z) of batch shape (B,) and event shape (C, H, W)."""
        raise NotImplementedError

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (K, B), for parameters (K, B, P * C, H, W) and data (B, C, H, W)."""
        return self(params).log_prob(x)

    def split(self, params: Tensor) -> Tensor:
        """Returns parameters (..., P * C, H, W) as (P, ..., C, H, W), lifted to float32 at least."""
        return at_least_float32(params).unflatten(-3, (self.params_per_channel, -1)).movedim(-4, 0)

    def check_support(self, support: str, levels: int | None = None) -> None:
        """Raises a ValueError if data of this kind, with this number of grey levels, lies outside the support."""
        if support not in self.supports:
            raise ValueError(
                f"{type(self).__name__} scores {' or '.join(self.supports)} data, but this data is {support} "
                f"(values outside its support give a meaningless ELBO); {self.remedy}"
            )


def bits_per_dim(log_px: Tensor, x_shape: Sequence[int]) -> Tensor:
    """Returns -log2 p(x) / (C * H * W), for log p(x) in nats of any shape and data of shape (C, H, W).

    It is a code length only of data that a likelihood gives a probability: see `Likelihood.probability_of`.
    """
    return -log_px / (math.log(2) * math.prod(x_shape))


def scale_from(log_scale: Tensor, *, floor: float) -> Tensor:
    """Returns exp(log_scale), bent softly so that it stays above `floor` and finite.

    log s = log floor + softplus(10 (log_scale - log floor)) / 10: log_scale itself from exp(2) floor upwards. Unlike a
    clamp it leaves a gradient to a scale that became too small and has to grow again (Rybkin et al. 2021 soften too).
    """
    excess = softplus(log_scale.clamp(max=MAX_LOG_SCALE) - math.log(floor), beta=10.0)
    return floor * excess.exp()
