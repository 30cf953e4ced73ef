"""What every encoder and decoder network promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaelab.checks import at_least_zero, one_of
from vaelab.networks.condition import HOW, FiLM, joined
from vaelab.numerics import inline_exp, scores_in_one_pass


class Tanh(nn.Module):
    """tanh(h), on a CPU as 2 sigmoid(2 h) - 1: the library's own takes several times as long there."""

    def forward(self, h: Tensor) -> Tensor:
        """Maps h to tanh(h)."""
        if scores_in_one_pass(h):
            return 1 - 2 / (1 + inline_exp((2 * h).clamp(max=40)))  # tanh(20) is 1
        return torch.add(-1, (2 * h).sigmoid_(), alpha=2) if h.device.type == "cpu" else torch.tanh(h)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": Tanh,
}
NORMS = ("none", "batch", "layer", "group")


class Contextual(nn.Module):
    """A network that may be given a vector c (B, context_dim) besides its input: see `vaelab.networks.Condition`.

    Attributes:
        appended: width of a vector that is appended to the input, or 0.
        modulating: width of a vector that modulates every hidden layer, or 0.
    """

    appended: int = 0
    modulating: int = 0

    def take_context(self, context_dim: int, conditioning: str) -> None:
        """Notes how wide c is and what becomes of it: concat or film."""
        at_least_zero("context_dim", context_dim), one_of("conditioning", conditioning, HOW)
        self.appended = context_dim if conditioning == "concat" else 0
        self.modulating = context_dim if conditioning == "film" else 0

    def with_context(self, h: Tensor, c: Tensor | None) -> Tensor:
        """Returns the input with c appended, if that is what becomes of it."""
        return joined(h, c) if self.appended and c is not None else h


class Encoder(Contextual):
    """A network from data (B, C, H, W) to features (B, *out_shape).

    `out_shape` is (F,) for a feature vector or (F, h, w) for a feature map. In a conditional model it is built with
    `context_dim` and `conditioning`, too, and called with the context's vector (B, context_dim) as second argument.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps data (B, C, H, W) to features (B, *out_shape)."""
        raise NotImplementedError


class Decoder(Contextual):
    """A network from latents (B, *in_shape) to likelihood parameters (B, *out_shape), perhaps given a context.

    Attributes:
        autoregressive: whether the parameters of a pixel depend on the pixels before it: such a decoder is called with
            the image, decoder(z, c, x=x), and can `generate`.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, int, int]
    autoregressive: ClassVar[bool] = False

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps latents (B, *in_shape) to likelihood parameters (B, C * P, H, W)."""
        raise NotImplementedError

    def generate(self, z: Tensor, c: Tensor | None, draw: Callable[[Tensor, int, int], Tensor]) -> Tensor:
        """Draws images (B, C, H, W) pixel by pixel, if the decoder is autoregressive.

        Args:
            z: latents (B, *in_shape).
            c: what a context became, (B, E), or None.
            draw: called with the parameters of one pixel (B, C * P, 1, 1), its row and its column; returns the pixel
                (B, C, 1, 1).
        """
        raise NotImplementedError


def activation_layer(name: str) -> nn.Module:
    """Returns the activation called `name`."""
    return ACTIVATIONS[one_of("activation", name, list(ACTIVATIONS))]()


def norm_layer(name: str, channels: int, *, spatial: bool) -> nn.Module | None:
    """Returns the normalisation called `name` over (B, channels) or, if `spatial`, over (B, channels, h, w).

    `group` uses the largest number of groups up to 8 that divides the channels and leaves at least two in each (a group
    of one value would be normalised to a constant); on vectors it is `layer`.
    """
    one_of("norm", name, NORMS)
    if name == "batch":
        return nn.BatchNorm2d(channels) if spatial else nn.BatchNorm1d(channels)
    if name == "layer":
        return nn.GroupNorm(1, channels) if spatial else nn.LayerNorm(channels)
    if name == "group":
        groups = next(g for g in range(max(1, min(8, channels // 2)), 0, -1) if channels % g == 0)
        return nn.GroupNorm(groups, channels) if spatial else nn.LayerNorm(channels)
    return None


def check_latent_map(in_shape: Sequence[int], size: tuple[int, int]) -> None:
    """Raises a ValueError unless the latent map `in_shape` (D, h, w) has the `size` at which the decoder starts."""
    if tuple(in_shape[1:]) != tuple(size):
        raise ValueError(
            f"the decoder starts from a map of {size[0]}x{size[1]}, but the latent map is {in_shape[1]}x{in_shape[2]}; "
            "give encoder and decoder the same stages (channels, kernel, stride)"
        )


class Gated(nn.Module):
    """h = (W x + b) * sigmoid(V x + c): a dense layer with its own gate (Dauphin et al. 2017, equation 1)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(width, out), nn.Linear(width, out)

    def forward(self, h: Tensor) -> Tensor:
        """Maps (B, width) to (B, out)."""
        return self.value(h) * self.gate(h).sigmoid()


def dense_layers(
    width: int,
    hidden: Sequence[int],
    *,
    activation: str,
    norm: str,
    dropout: float,
    film: int = 0,
    gated: bool = False,
) -> list[nn.Module]:
    """Returns [Linear, norm, FiLM, activation, dropout] for every width in `hidden`, starting from `width` features.

    With `gated` a gated layer takes the place of Linear and activation; `film` is the width of a modulating context.
    """
    layers: list[nn.Module] = []
    for out in hidden:
        layers.append(Gated(width, out) if gated else nn.Linear(width, out))
        if (normalisation := norm_layer(norm, out, spatial=False)) is not None:
            layers.append(normalisation)
        if film:
            layers.append(FiLM(film, out))
        if not gated:
            layers.append(activation_layer(activation))
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = out
    return layers
