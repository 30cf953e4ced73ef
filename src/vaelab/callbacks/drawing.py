"""Pictures of what a model has learned, as tensors (3, H, W) with values in [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torchvision.utils import make_grid

from vaelab.models import Model
from vaelab.networks import LabelCondition

SMALLEST_SIDE = 56  # smaller images are enlarged by a whole factor
DRAWING_SEED = 0


def grid(images: Tensor, *, columns: int, value_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Arranges images (N, C, H, W) in a grid of so many columns, mapping `value_range` to black and white.

    Of images with neither 1 nor 3 channels the first one is shown.
    """
    low, high = value_range
    shown = images if images.shape[1] in (1, 3) else images[:, :1]
    shown = ((shown.float().cpu() - low) / (high - low)).clamp(0, 1)
    factor = max(1, round(SMALLEST_SIDE / min(shown.shape[2:])))
    if factor > 1:
        shown = functional.interpolate(shown, scale_factor=factor, mode="nearest")
    return make_grid(shown, nrow=columns, padding=2, pad_value=0.5)


def samples(model: Model, y: Tensor, *, rows: int = 4, value_range: tuple[float, float]) -> Tensor:
    """Draws a rows x rows grid of mean images E[x|z] with z from the model's prior, the same z at every call.

    A model that is conditional on labels draws a column for every class instead; one that is conditional on attributes
    takes those of the first images, y (N, ...).
    """
    context, columns = None, rows
    if isinstance(model.condition, LabelCondition):
        columns = model.condition.num_classes
        context = torch.arange(rows * columns, device=model.device) % columns
    elif model.condition.dim:
        context = y[torch.arange(rows * columns, device=y.device) % len(y)]
    images = model.sample(rows * columns, context, seed=DRAWING_SEED)
    return grid(images, columns=columns, value_range=value_range)


def reconstructions(
    model: Model, x: Tensor, y: Tensor, *, columns: int = 8, value_range: tuple[float, float]
) -> Tensor:
    """Draws originals x (B, C, H, W), of labels y, and, in the row below each row of them, their reconstructions."""
    columns = min(columns, len(x))
    x = x[: len(x) // columns * columns]  # full rows only, so that each stands above its reconstructions
    rows: list[Tensor] = []
    for part, given in zip(x.split(columns), y[: len(x)].split(columns), strict=True):
        rows += [part.cpu(), model.reconstruct(part, given).cpu().to(part.dtype)]
    return grid(torch.cat(rows), columns=columns, value_range=value_range)


@torch.no_grad()
def manifold(model: Model, *, side: int = 20, value_range: tuple[float, float]) -> Tensor:
    """Draws E[x|z] for z at a grid of quantiles (2.5 % to 97.5 %) of a two-dimensional standard normal."""
    quantiles = torch.linspace(0.025, 0.975, side)
    axis = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    z = torch.stack(torch.meshgrid(-axis, axis, indexing="ij"), -1).flip(-1).reshape(-1, 2)
    return grid(model.decode(z), columns=side, value_range=value_range)


@torch.no_grad()
def latent_scatter(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Draws the posterior means of x (B, C, H, W) in a two-dimensional latent space, coloured by label y (B,).

    With attributes (B, A) in the place of labels, the colour is that of the first one.
    """
    z = (
        torch.cat([model.encode(part, c).mean.cpu() for part, c in zip(x.split(1000), y.split(1000), strict=True)])
        .float()
        .numpy()
    )
    figure = Figure(figsize=(7, 6), dpi=100)
    axes = figure.add_subplot()
    labels, name = (y, "label") if y.ndim == 1 else (y[:, 0], "first attribute")
    few = not y.is_floating_point() and int(y.max()) < 10
    colors: dict[str, Any] = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5} if few else {"cmap": "nipy_spectral"}
    points = axes.scatter(z[:, 0], z[:, 1], c=labels.cpu().numpy(), s=4, **colors)
    axes.set(xlabel="$z_1$", ylabel="$z_2$", title="posterior means", aspect="equal")
    figure.colorbar(points, ax=axes, label=name, ticks=range(10) if few else None)
    return rendered(figure)


def kl_bars(kl: Tensor) -> Tensor:
    """Draws the KL of every latent dimension (D,) in nats, largest first."""
    figure = Figure(figsize=(7, 3.5), dpi=100)
    axes = figure.add_subplot()
    axes.bar(range(len(kl)), kl.sort(descending=True).values.cpu().numpy())
    axes.set(
        xlabel="latent dimension, by rank",
        ylabel="KL (nats)",
        title=f"KL by dimension, {float(kl.sum()):.2f} nats in all",
    )
    return rendered(figure)


def rendered(figure: Figure) -> Tensor:
    """Renders a matplotlib figure, without pyplot's global state."""
    figure.tight_layout()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
