"""What every encoder and decoder network promises."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vaelab.checks import one_of

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
NORMS = ("none", "batch", "layer", "group")


class Encoder(nn.Module):
    """A network from data (B, C, H, W) to features (B, *out_shape).

    `out_shape` is (F,) for a feature vector or (F, h, w) for a feature map.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    def forward(self, x: Tensor) -> Tensor:
        """Maps data (B, C, H, W) to features (B, *out_shape)."""
        raise NotImplementedError


class Decoder(nn.Module):
    """A network from latents (B, *in_shape) to likelihood parameters (B, *out_shape)."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, int, int]

    def forward(self, z: Tensor) -> Tensor:
        """Maps latents (B, *in_shape) to likelihood parameters (B, C * P, H, W)."""
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


def dense_layers(width: int, hidden: Sequence[int], *, activation: str, norm: str, dropout: float) -> list[nn.Module]:
    """Returns [Linear, norm, activation, dropout] for every width in `hidden`, starting from `width` features."""
    layers: list[nn.Module] = []
    for out in hidden:
        layers.append(nn.Linear(width, out))
        if (normalisation := norm_layer(norm, out, spatial=False)) is not None:
            layers.append(normalisation)
        layers.append(activation_layer(activation))
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = out
    return layers
