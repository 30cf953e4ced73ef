"""Fully connected encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vaelab.checks import fraction, image_shape, positive_ints
from vaelab.networks.base import Decoder, Encoder, dense_layers
from vaelab.networks.condition import Layers


class MLPEncoder(Encoder):
    """Flattens the data and applies dense layers: x (B, C, H, W) -> features (B, hidden[-1]).

    Args:
        in_shape: data shape (C, H, W).
        hidden: widths of the hidden layers, from the data towards the latents.
        activation: name of the non-linearity.
        norm: none, batch or layer.
        dropout: probability of dropping a hidden unit, in [0, 1).
        gated: gated hidden layers, h = (W x + b) * sigmoid(V x + c), without another non-linearity.
        context_dim: width of a context's vector c; 0 for none.
        conditioning: what becomes of c: `concat` (appended to the input) or `film` (modulates every hidden layer).

    Raises:
        ValueError: for an empty `hidden`, a width below 1, or an unknown name.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        hidden: Sequence[int] = (400,),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        gated: bool = False,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = image_shape("in_shape", in_shape)
        hidden = positive_ints("hidden", hidden)
        if not hidden:
            raise ValueError("hidden needs at least one width, for example hidden=[400]")
        self.layers = Layers(
            nn.Flatten(),
            *dense_layers(
                math.prod(self.in_shape) + self.appended,
                hidden,
                activation=activation,
                norm=norm,
                dropout=fraction("dropout", dropout),
                film=self.modulating,
                gated=gated,
            ),
        )
        self.out_shape = (hidden[-1],)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps data (B, C, H, W) to features (B, hidden[-1])."""
        return self.layers(self.with_context(x.flatten(1), c), c)


class MLPDecoder(Decoder):
    """Flattens the latents, applies dense layers and ends in the likelihood's parameters (B, *out_shape).

    Args:
        in_shape: latent shape.
        out_shape: shape of the likelihood's parameters, (C * P, H, W).
        hidden: widths as in the encoder, from the data towards the latents: they are used in reverse.
        activation: name of the non-linearity.
        norm: none, batch or layer.
        dropout: probability of dropping a hidden unit, in [0, 1).
        gated: gated hidden layers, h = (W x + b) * sigmoid(V x + c), without another non-linearity.
        context_dim: width of a context's vector c; 0 for none.
        conditioning: what becomes of c: `concat` (appended to the input) or `film` (modulates every hidden layer).

    Raises:
        ValueError: for an empty `hidden`, a width below 1, or an unknown name.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        hidden: Sequence[int] = (400,),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        gated: bool = False,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = tuple(in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        widths = positive_ints("hidden", hidden)[::-1]
        if not widths:
            raise ValueError("hidden needs at least one width, for example hidden=[400]")
        self.layers = Layers(
            nn.Flatten(),
            *dense_layers(
                math.prod(self.in_shape) + self.appended,
                widths,
                activation=activation,
                norm=norm,
                dropout=fraction("dropout", dropout),
                film=self.modulating,
                gated=gated,
            ),
            nn.Linear(widths[-1], math.prod(self.out_shape)),
            nn.Unflatten(1, self.out_shape),
        )

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Maps latents (B, *in_shape) to likelihood parameters (B, *out_shape)."""
        return self.layers(self.with_context(z.flatten(1), c), c)
