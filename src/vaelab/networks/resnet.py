"""Residual networks of pre-activation blocks (He et al. 2016, "Identity mappings in deep residual networks")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from vaelab.checks import fraction, image_shape, positive_int
from vaelab.networks.base import Decoder, Encoder, activation_layer, check_latent_map, norm_layer
from vaelab.networks.condition import FiLM, Layers, Modulated
from vaelab.networks.conv import Size, stage_sizes, stages


class ResidualBlock(Modulated):
    """x + f(x) with f = norm, FiLM, activation, 3x3 convolution, twice; a 1x1 convolution where the channels change."""

    def __init__(self, c_in: int, c_out: int, *, activation: str, norm: str, dropout: float, film: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((c_in, c_out), (c_out, c_out)):
            if (normalisation := norm_layer(norm, a, spatial=True)) is not None:
                layers.append(normalisation)
            if film:
                layers.append(FiLM(film, a))
            layers += [activation_layer(activation), nn.Conv2d(a, b, 3, padding=1)]
        if dropout > 0:
            layers.insert(-1, nn.Dropout2d(dropout))
        self.residual = Layers(*layers)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps (B, c_in, h, w) to (B, c_out, h, w)."""
        return self.skip(x) + self.residual(x, c)


class Resize(nn.Module):
    """Area interpolation down, nearest-neighbour interpolation up, to a fixed size."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, c, h, w) to (B, c, *size)."""
        if x.shape[-2] > self.size[0]:
            return functional.adaptive_avg_pool2d(x, self.size)
        return functional.interpolate(x, self.size, mode="nearest")


class ResNetEncoder(Encoder):
    """Residual stages, each followed by average pooling by 2: x (B, C, H, W) -> map (B, channels[-1], h, w).

    Args:
        in_shape: data shape (C, H, W).
        channels: channels of the stages, from the data towards the latents.
        blocks: residual blocks in each stage.
        activation: name of the non-linearity.
        norm: none, batch, layer or group.
        dropout: probability of dropping a channel, in [0, 1).
        context_dim: width of a context's vector c; 0 for none.
        conditioning: what becomes of c: `concat` (appended to the input) or `film` (modulates every hidden layer).

    Raises:
        ValueError: for an image too small for so many stages, or a value outside its range.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        activation: str = "silu",
        norm: str = "group",
        dropout: float = 0.0,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = image_shape("in_shape", in_shape)
        channels = stages(channels)
        positive_int("blocks", blocks), fraction("dropout", dropout)
        options: dict[str, Any] = {
            "activation": activation,
            "norm": norm,
            "dropout": dropout,
            "film": self.modulating,
        }
        sizes = stage_sizes(self.in_shape[1:], count=len(channels), kernel=2, stride=2, resample="pool")
        layers: list[nn.Module] = [nn.Conv2d(self.in_shape[0] + self.appended, channels[0], 3, padding=1)]
        for c_in, c_out, size in zip((channels[0], *channels), channels, sizes[1:], strict=False):
            for i in range(blocks):
                layers.append(ResidualBlock(c_in if i == 0 else c_out, c_out, **options))
            layers.append(Resize(size))
        if (normalisation := norm_layer(norm, channels[-1], spatial=True)) is not None:
            layers.append(normalisation)
        layers.append(activation_layer(activation))
        self.layers = Layers(*layers)
        self.out_shape = (channels[-1], *sizes[-1])

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps data (B, C, H, W) to a feature map (B, channels[-1], h, w)."""
        return self.layers(self.with_context(x, c), c)


class ResNetDecoder(Decoder):
    """Residual stages, each preceded by nearest-neighbour un-pooling, ending in the likelihood's parameters.

    Args:
        in_shape: latent shape, (D,) or a map (D, h, w).
        out_shape: shape of the likelihood's parameters, (C * P, H, W).
        channels: channels as in the encoder, from the data towards the latents: used in reverse.
        blocks: residual blocks in each stage.
        activation: name of the non-linearity.
        norm: none, batch, layer or group.
        dropout: probability of dropping a channel, in [0, 1).
        context_dim: width of a context's vector c; 0 for none.
        conditioning: what becomes of c: `concat` (appended to the input) or `film` (modulates every hidden layer).

    Raises:
        ValueError: for an image too small for its stages, a latent map of another size, or a value outside its range.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        blocks: int = 1,
        activation: str = "silu",
        norm: str = "group",
        dropout: float = 0.0,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = tuple(in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        channels = stages(channels)[::-1]
        positive_int("blocks", blocks), fraction("dropout", dropout)
        options: dict[str, Any] = {
            "activation": activation,
            "norm": norm,
            "dropout": dropout,
            "film": self.modulating,
        }
        sizes = stage_sizes(self.out_shape[1:], count=len(channels), kernel=2, stride=2, resample="pool")[::-1]
        first = (channels[0], *sizes[0])
        layers: list[nn.Module] = []
        if len(self.in_shape) == 3:
            check_latent_map(self.in_shape, sizes[0])
            layers.append(nn.Conv2d(self.in_shape[0] + self.appended, channels[0], 1))
        else:
            layers += [nn.Linear(self.in_shape[0] + self.appended, math.prod(first)), nn.Unflatten(1, first)]
        for c_in, c_out, size in zip((channels[0], *channels), channels, sizes[1:], strict=False):
            layers.append(Resize(size))
            for i in range(blocks):
                layers.append(ResidualBlock(c_in if i == 0 else c_out, c_out, **options))
        if (normalisation := norm_layer(norm, channels[-1], spatial=True)) is not None:
            layers.append(normalisation)
        layers += [activation_layer(activation), nn.Conv2d(channels[-1], self.out_shape[0], 3, padding=1)]
        self.layers = Layers(*layers)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps latents (B, *in_shape) to likelihood parameters (B, *out_shape)."""
        return self.layers(self.with_context(z, c), c)
