"""Convolutional encoder and decoder for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from vaelab.checks import fraction, image_shape, one_of, positive_int, positive_ints
from vaelab.networks.base import Decoder, Encoder, activation_layer, check_latent_map, dense_layers, norm_layer
from vaelab.networks.condition import FiLM, Layers

Size = tuple[int, int]


def stages(channels: Sequence[int]) -> list[int]:
    """Returns the channels of the stages, or raises a ValueError if there are none."""
    if not channels:
        raise ValueError("channels needs at least one stage, for example channels=[32,64]")
    return positive_ints("channels", channels)


def stage_sizes(size: Size, *, count: int, kernel: int, stride: int, resample: str) -> list[Size]:
    """Returns the heights and widths that a stack of down-sampling stages goes through, the input's first.

    `conv`: n -> floor((n + 2p - k) / s) + 1 with p = (k - 1) // 2;  `pool`: n -> floor(n / s).

    Raises:
        ValueError: if the image is too small for so many stages.
    """
    pad = (kernel - 1) // 2
    sizes = [size]
    for stage in range(count):
        height, width = sizes[-1]
        if resample == "conv":
            height, width = ((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
        else:
            height, width = height // stride, width // stride
        if min(height, width) < 1:
            raise ValueError(
                f"an image of {size[0]}x{size[1]} is too small for {count} stages of stride {stride}: stage "
                f"{stage + 1} would be empty; use fewer entries in channels"
            )
        sizes.append((height, width))
    return sizes


def _block(conv: nn.Module, channels: int, *, activation: str, norm: str, dropout: float, film: int) -> list[nn.Module]:
    layers = [conv]
    if (normalisation := norm_layer(norm, channels, spatial=True)) is not None:
        layers.append(normalisation)
    if film:
        layers.append(FiLM(film, channels))
    layers.append(activation_layer(activation))
    if dropout > 0:
        layers.append(nn.Dropout2d(dropout))
    return layers


class ConvEncoder(Encoder):
    """A stack of convolutions, each followed by down-sampling: x (B, C, H, W) -> features.

    The features are a map (B, channels[-1], h, w), or a vector (B, dense[-1]) when `dense` is not empty.

    Args:
        in_shape: data shape (C, H, W).
        channels: output channels of the stages, from the data towards the latents.
        kernel: kernel size.
        stride: factor by which every stage shrinks height and width.
        downsample: `conv` (the convolution is strided) or `pool` (a convolution, then max pooling).
        dense: widths of dense layers after the convolutions.
        activation: name of the non-linearity.
        norm: none, batch, layer or group.
        dropout: probability of dropping a channel (or a dense unit), in [0, 1).
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
        kernel: int = 3,
        stride: int = 2,
        downsample: str = "conv",
        dense: Sequence[int] = (),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = image_shape("in_shape", in_shape)
        channels, dense = stages(channels), positive_ints("dense", dense)
        positive_int("kernel", kernel), positive_int("stride", stride), fraction("dropout", dropout)
        one_of("downsample", downsample, ("conv", "pool"))
        sizes = stage_sizes(self.in_shape[1:], count=len(channels), kernel=kernel, stride=stride, resample=downsample)
        options: dict[str, Any] = {"activation": activation, "norm": norm, "dropout": dropout, "film": self.modulating}
        layers: list[nn.Module] = []
        for c_in, c_out in zip((self.in_shape[0] + self.appended, *channels), channels, strict=False):
            if downsample == "conv":
                conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=(kernel - 1) // 2)
            else:
                conv = nn.Conv2d(c_in, c_out, kernel, padding="same")
            layers += _block(conv, c_out, **options)
            if downsample == "pool":
                layers.append(nn.MaxPool2d(stride))
        self.out_shape = (channels[-1], *sizes[-1])
        if dense:
            width = math.prod(self.out_shape)
            layers += [nn.Flatten(), *dense_layers(width, dense, **options)]
            self.out_shape = (dense[-1],)
        self.layers = Layers(*layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps data (B, C, H, W) to features (B, *out_shape)."""
        return self.layers(self.with_context(x, c), c)


class ConvDecoder(Decoder):
    """A stack of up-sampling convolutions that ends in the likelihood's parameters (B, *out_shape).

    The stages retrace the sizes of a ConvEncoder with the same channels, kernel and stride, whatever the image size:
    a transposed convolution gets the output padding that restores the size lost to rounding.

    Args:
        in_shape: latent shape, (D,) or a map (D, h, w).
        out_shape: shape of the likelihood's parameters, (C * P, H, W).
        channels: channels of the stages as in the encoder, from the data towards the latents: used in reverse.
        kernel: kernel size.
        stride: factor by which every stage grows height and width.
        upsample: `conv` (transposed convolution) or `nearest` (nearest-neighbour un-pooling, then a convolution).
        dense: widths of dense layers as in the encoder, used in reverse, before the first feature map.
        activation: name of the non-linearity.
        norm: none, batch, layer or group.
        dropout: probability of dropping a channel (or a dense unit), in [0, 1).
        context_dim: width of a context's vector c; 0 for none.
        conditioning: what becomes of c: `concat` (appended to the input) or `film` (modulates every hidden layer).

    Raises:
        ValueError: for an image too small for its stages, a latent map of another size or with dense layers, or a value
            outside its range.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        kernel: int = 3,
        stride: int = 2,
        upsample: str = "conv",
        dense: Sequence[int] = (),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = tuple(in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        channels, dense = stages(channels)[::-1], positive_ints("dense", dense)[::-1]
        positive_int("kernel", kernel), positive_int("stride", stride), fraction("dropout", dropout)
        one_of("upsample", upsample, ("conv", "nearest"))
        sizes = stage_sizes(
            self.out_shape[1:],
            count=len(channels),
            kernel=kernel,
            stride=stride,
            resample="conv" if upsample == "conv" else "pool",
        )[::-1]
        options: dict[str, Any] = {"activation": activation, "norm": norm, "dropout": dropout, "film": self.modulating}
        layers = self._first_map(channels[0], sizes[0], dense, options)
        for i, (c_in, c_out) in enumerate(zip((channels[0], *channels), channels, strict=False)):
            if upsample == "conv":
                pad = (kernel - 1) // 2
                height, width = (
                    after - ((before - 1) * stride - 2 * pad + kernel)
                    for before, after in zip(sizes[i], sizes[i + 1], strict=True)
                )
                conv: nn.Module = nn.ConvTranspose2d(
                    c_in, c_out, kernel, stride=stride, padding=pad, output_padding=(height, width)
                )
            else:
                layers.append(nn.Upsample(size=sizes[i + 1], mode="nearest"))
                conv = nn.Conv2d(c_in, c_out, kernel, padding="same")
            layers += _block(conv, c_out, **options)
        odd = kernel if kernel % 2 else kernel - 1
        last = nn.ConvTranspose2d if upsample == "conv" else nn.Conv2d
        layers.append(last(channels[-1], self.out_shape[0], odd, padding=odd // 2))
        self.layers = Layers(*layers)

    def _first_map(self, channels: int, size: Size, dense: Sequence[int], options: dict[str, Any]) -> list[nn.Module]:
        if len(self.in_shape) == 3:
            check_latent_map(self.in_shape, size)
            if dense:
                raise ValueError(
                    "dense layers have no place between a latent map and the decoder's first map; choose "
                    "model.decoder.dense=[] or model.latent_map=false"
                )
            first = nn.Conv2d(self.in_shape[0] + self.appended, channels, 1)
            return _block(first, channels, **options)
        shape = (channels, *size)
        widths = [*dense, math.prod(shape)]
        layers = dense_layers(self.in_shape[0] + self.appended, widths, **options)
        return [*layers, nn.Unflatten(1, shape)]

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps latents (B, *in_shape) to likelihood parameters (B, *out_shape)."""
        return self.layers(self.with_context(z, c), c)
