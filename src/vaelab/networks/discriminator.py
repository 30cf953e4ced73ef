"""Discriminators: networks that tell two kinds of things apart, by one logit for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vaelab.checks import image_shape, positive_int, positive_ints
from vaelab.networks.base import norm_layer
from vaelab.networks.conv import stages
from vaelab.numerics import at_least_float32

SLOPE = 0.2  # of the leaky ReLU below 0, as in DCGAN (Radford et al. 2016) and FactorVAE

SMALLEST = 4  # height or width of a map that is halved no further


class Discriminator(nn.Module):
    """log D(x) / (1 - D(x)), with D the probability that x is of the first kind: x (B, *in_shape) -> (B,).

    At the optimum it is the log-ratio of the two densities, log p_1(x) / p_2(x) (Goodfellow et al. 2014, proposition
    1).

    Attributes:
        features: x (B, *in_shape) -> (B, F), what an image looks like to it.
        head: features (B, F) -> logits (B, 1).
    """

    features: nn.Module
    head: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, *in_shape) to logits (B,)."""
        return at_least_float32(self.head(self.features(x))).squeeze(-1)


class MLPDiscriminator(Discriminator):
    """Dense layers with leaky ReLUs.

    (One logit is the difference of the two of Kim & Mnih 2018: the same functions and the same cross-entropy.)

    Args:
        in_shape: shape of what it looks at; flattened.
        hidden: widths of the hidden layers.

    Raises:
        ValueError: for an empty `hidden` or a width below 1.
    """

    def __init__(self, *, in_shape: Sequence[int], hidden: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        width, layers = math.prod(positive_ints("in_shape", in_shape)), list[nn.Module]()
        if not positive_ints("hidden", hidden):
            raise ValueError("hidden needs at least one width, for example hidden=[256]")
        for out in hidden:
            layers += [nn.Linear(width, out), nn.LeakyReLU(SLOPE)]
            width = out
        self.features = nn.Sequential(nn.Flatten(), *layers)
        self.head = nn.Linear(width, 1)


class ConvDiscriminator(Discriminator):
    """Convolutions with leaky ReLUs, then a dense layer, for images of any size.

    Every stage halves height and width, n -> ceil(n / 2), down to 4 but no further, as DCGAN ends in 4x4 (Radford et
    al. 2016). Its `features` are the last map, flattened.

    Args:
        in_shape: data shape (C, H, W).
        channels: of the stages.
        kernel: kernel size, odd.
        norm: none, batch, layer or group, behind every convolution but the first.
        hidden: width of the dense layer before the logit.

    Raises:
        ValueError: for an empty `channels`, an even `kernel`, an unknown `norm` or a size below 1.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        kernel: int = 3,
        norm: str = "batch",
        hidden: int = 128,
    ) -> None:
        super().__init__()
        width, *size = image_shape("in_shape", in_shape)
        if positive_int("kernel", kernel) % 2 == 0:
            raise ValueError(f"kernel must be odd, but is {kernel}")
        positive_int("hidden", hidden)
        layers: list[nn.Module] = []
        for i, out in enumerate(stages(channels)):
            stride = [2 if n > SMALLEST else 1 for n in size]
            layers.append(nn.Conv2d(width, out, kernel, stride=(stride[0], stride[1]), padding=kernel // 2))
            normalisation = norm_layer(norm, out, spatial=True)
            if i > 0 and normalisation is not None:
                layers.append(normalisation)
            layers.append(nn.LeakyReLU(SLOPE))
            width, size = out, [-(-n // s) for n, s in zip(size, stride, strict=True)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(width * math.prod(size), hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, 1))
