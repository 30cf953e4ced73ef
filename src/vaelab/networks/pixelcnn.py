"""Gated PixelCNN (van den Oord et al. 2016) and the decoder that is made of it (Gulrajani et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vaelab.checks import image_shape, positive_int
from vaelab.distributions.autoregressive import RasterNetwork
from vaelab.networks.base import Decoder


class GatedLayer(nn.Module):
    """One layer of the vertical and the horizontal stack (van den Oord et al. 2016, figure 2 and equation 2).

    y = tanh(W_f * x + V_f s) . sigmoid(W_g * x + V_g s) in both stacks; the horizontal one also gets what the vertical
    one sees, and has the residual and the skip connection.

    Args:
        c_in: channels of the input of both stacks.
        channels: channels of the output of both stacks, and of the skip connection.
        kernel: kernel size, odd.
        condition_channels: channels of the map s; 0 for none.
        first: whether this layer sees the image: then no row sees itself in the vertical, no pixel in the horizontal
            stack, and there is no residual connection.
        last: whether only the skip connection is read.
    """

    def __init__(
        self, c_in: int, channels: int, kernel: int, *, condition_channels: int, first: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        self.reach, self.first = kernel // 2, first
        before = self.reach if first else self.reach + 1  # rows above, or pixels to the left, that the kernel covers
        self.vertical = nn.Conv2d(c_in, 2 * channels, (before, kernel))
        self.horizontal = nn.Conv2d(c_in, 2 * channels, (1, before))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.condition = nn.Conv2d(condition_channels, 4 * channels, 1) if condition_channels else None
        self.skip = nn.Conv2d(channels, channels, 1)
        self.residual = None if last else nn.Conv2d(channels, channels, 1)

    def above(self, v: Tensor, s: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the vertical stack's output and what the horizontal one gets of it, (B, channels and twice, H, W)."""
        v = self.vertical(pad(v, (self.reach, self.reach, self.reach, -1 if self.first else 0)))
        if self.condition is None or s is None:
            return gate(v), self.link(v)
        mine, theirs = self.condition(s).chunk(2, 1)
        v = v + mine
        return gate(v), self.link(v) + theirs

    def along(self, h: Tensor, link: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the horizontal stack's output (of the last layer, its input) and the skip connection."""
        out = gate(self.horizontal(pad(h, (self.reach, -1 if self.first else 0))) + link)
        if self.residual is None:
            return h, self.skip(out)
        return self.residual(out) if self.first else h + self.residual(out), self.skip(out)


class GatedPixelCNN(RasterNetwork):
    """x (B, C, H, W) -> (B, out_channels, H, W), whose pixel i depends on the pixels before i in raster order only.

    A vertical stack sees the rows above, a horizontal one the row to the left of the pixel, so that no earlier pixel in
    the receptive field is missed (van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders",
    sections 2.1 and 2.2). An optional map s steers every gate through 1x1 convolutions (section 2.3). The channels of
    one pixel see each other nowhere.

    Attributes:
        reach: R; pixel (r, c) depends on rows r - R to r and on columns c - R to c + R.

    Args:
        in_channels: C.
        out_channels: channels of the output.
        condition_channels: F of the map s (B, F, H, W); 0 for none.
        channels: channels of both stacks.
        layers: number of gated layers.
        first_kernel: kernel size of the first layer, odd.
        kernel: kernel size of the others, odd.

    Raises:
        ValueError: for a number below 1, or a kernel size that is even or below 3.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        condition_channels: int = 0,
        channels: int = 32,
        layers: int = 4,
        first_kernel: int = 5,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        positive_int("channels", channels), positive_int("layers", layers)
        for name, size in (("first_kernel", first_kernel), ("kernel", kernel)):
            if positive_int(name, size) < 3 or size % 2 == 0:
                raise ValueError(f"{name} must be odd and at least 3, but is {size}")
        self.in_channels = in_channels
        self.reach = first_kernel // 2 + (layers - 1) * (kernel // 2)
        self.layers = nn.ModuleList(
            GatedLayer(
                channels if i else in_channels,
                channels,
                kernel if i else first_kernel,
                condition_channels=condition_channels,
                first=i == 0,
                last=i == layers - 1,
            )
            for i in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, s: Tensor | None = None) -> Tensor:
        """Maps x (B, C, H, W), and s (B, F, H, W), to (B, out_channels, H, W) for all pixels at once."""
        return self._along(x, self._above(x, s))

    @torch.no_grad()
    def generate(
        self, draw: Callable[[Tensor, int, int], Tensor], size: Sequence[int], s: Tensor | None = None
    ) -> Tensor:
        """Draws x (B, C, H, W) pixel by pixel; the stacks are run on no more than a pixel's receptive field.

        Args:
            draw: called with the output at one pixel (B, out_channels, 1, 1), its row and its column; returns the pixel
                (B, C, 1, 1).
            size: B, H, W.
            s: (B, F, H, W), or None.
        """
        count, height, width = size
        x = next(self.parameters()).new_zeros(count, self.in_channels, height, width)
        for row in range(height):
            rows = slice(max(0, row - self.reach), row + 1)
            links = self._above(x[:, :, rows], None if s is None else s[:, :, rows])
            for column in range(width):
                seen = slice(max(0, column - self.reach), column + 1)
                out = self._along(x[:, :, row : row + 1, seen], [link[:, :, -1:, seen] for link in links])
                x[:, :, row, column] = draw(out[..., -1:], row, column)[..., 0, 0]
        return x

    @property
    def _stack(self) -> list[GatedLayer]:
        return cast(list[GatedLayer], list(self.layers))

    def _above(self, v: Tensor, s: Tensor | None) -> list[Tensor]:
        links = []
        for layer in self._stack:
            v, link = layer.above(v, s)
            links.append(link)
        return links

    def _along(self, h: Tensor, links: Sequence[Tensor]) -> Tensor:
        skips = []
        for layer, link in zip(self._stack, links, strict=True):
            h, skip = layer.along(h, link)
            skips.append(skip)
        return self.head(torch.stack(skips).sum(0))


class PixelCNNDecoder(Decoder):
    """p(x|z) = prod_i p(x_i | x_<i, z): an up-sampling decoder whose output steers a PixelCNN over the image.

    `inner` maps the latents to a map s (F, H, W), and a `GatedPixelCNN` of x and s emits the likelihood's parameters
    (PixelVAE: Gulrajani et al. 2017). The channels of one pixel are independent given z and the pixels before it.

    A PixelCNN that sees far enough explains the data without z, and the posterior collapses to the prior; one with a
    small receptive field leaves everything beyond it to z (Chen et al. 2017, "Variational lossy autoencoder").
    Deviations from PixelVAE: the map steers every gate, where the paper appends it to the image; no masking within a
    pixel.

    Args:
        in_shape: latent shape, (D,) or a map (D, h, w), as far as `inner` takes it.
        out_shape: shape of the likelihood's parameters, (C * P, H, W).
        x_shape: data shape (C, H, W).
        inner: called with `in_shape` and `out_shape` = (F, H, W), and with a context's width in a conditional model.
        condition_channels: F.
        channels: channels of the PixelCNN.
        layers: number of its gated layers.
        first_kernel: kernel size of the first layer, odd.
        kernel: kernel size of the others, odd.
        context_dim: width of a context's vector c; 0 for none.
        conditioning: what becomes of c in `inner`: `concat` or `film`.

    Raises:
        ValueError: for parameters that do not fit the data, or a size out of range; when called, for a missing image.
    """

    autoregressive = True

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        x_shape: Sequence[int],
        inner: Callable[..., Decoder],
        condition_channels: int = 32,
        channels: int = 32,
        layers: int = 4,
        first_kernel: int = 5,
        kernel: int = 3,
        context_dim: int = 0,
        conditioning: str = "concat",
    ) -> None:
        super().__init__()
        self.take_context(context_dim, conditioning)
        self.in_shape = tuple(in_shape)
        self.out_shape = image_shape("out_shape", out_shape)
        self.x_shape = image_shape("x_shape", x_shape)
        if self.out_shape[1:] != self.x_shape[1:] or self.out_shape[0] % self.x_shape[0]:
            raise ValueError(
                f"x_shape={self.x_shape} does not fit likelihood parameters of shape {self.out_shape}; give x_shape "
                "the shape of the data (x_shape=${derived.x_shape} in a configuration)"
            )
        positive_int("condition_channels", condition_channels)
        options = {"context_dim": context_dim, "conditioning": conditioning} if context_dim else {}
        self.inner = inner(in_shape=self.in_shape, out_shape=(condition_channels, *self.x_shape[1:]), **options)
        self.pixelcnn = GatedPixelCNN(
            in_channels=self.x_shape[0],
            out_channels=self.out_shape[0],
            condition_channels=condition_channels,
            channels=channels,
            layers=layers,
            first_kernel=first_kernel,
            kernel=kernel,
        )

    def forward(self, z: Tensor, c: Tensor | None = None, *, x: Tensor | None = None) -> Tensor:
        """Maps latents (B, *in_shape) and the image (B, C, H, W) to the parameters of every pixel given those before.

        Raises:
            ValueError: without the image.
        """
        if x is None:
            raise ValueError(
                "PixelCNNDecoder predicts every pixel from those before it and needs the image, decoder(z, x=x), but "
                "none is given; choose model=vae, or another model/decoder"
            )
        return self.pixelcnn(x, self.condition_map(z, c))

    def condition_map(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Returns what steers the PixelCNN, (B, F, H, W)."""
        return self.inner(z) if c is None else self.inner(z, c)

    def generate(self, z: Tensor, c: Tensor | None, draw: Callable[[Tensor, int, int], Tensor]) -> Tensor:
        """Draws images (B, C, H, W) pixel by pixel."""
        with torch.no_grad():
            return self.pixelcnn.generate(draw, (len(z), *self.x_shape[1:]), self.condition_map(z, c))


def gate(h: Tensor) -> Tensor:
    """Returns tanh(a) * sigmoid(b) of h = (a, b) along the channels."""
    a, b = h.chunk(2, 1)
    return a.tanh() * b.sigmoid()
