"""Charts of an evaluation, for what is easier seen than read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator
from torch import Tensor

BINS = 60


def draw_histograms(path: Path, values: Mapping[str, Tensor], label: str) -> None:
    """Draws the distributions of the finite ones of values (N,) over images above each other, each with its mean."""
    drawing = Drawing(figsize=(7, 3.5), dpi=100)
    axes = drawing.subplots()
    finite = {name: v[v.isfinite()].double().numpy() for name, v in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(finite.values())), BINS).tolist()
    for i, (name, v) in enumerate(finite.items()):
        title = f"{name}, mean {values[name].double().mean():.2f}"
        axes.hist(v, edges, histtype="stepfilled", alpha=0.5, color=f"C{i}", label=title)
        if len(v):
            axes.axvline(v.mean(), color=f"C{i}", lw=1)
    axes.set(xlabel=label, ylabel="images")
    axes.legend(frameon=False)
    save(drawing, path)


def draw_bars(path: Path, panels: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Draws the mean KL of every dimension, largest first, with its standard error; a panel for each latent group.

    Args:
        path: of the picture.
        panels: means and standard errors, (D,) each, by the name of the group.
    """
    drawing = Drawing(figsize=(7, 3 * len(panels) + 0.5), dpi=100)
    for axes, (name, (mean, error)) in zip(
        drawing.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True
    ):
        order = mean.argsort(descending=True)
        axes.bar(range(1, len(mean) + 1), mean[order].numpy(), yerr=error[order].numpy(), error_kw={"lw": 0.8})
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.4, len(mean) + 0.6)
        title = f"{name}KL by dimension, {mean.sum():.2f} nats in all"
        axes.set(xlabel="dimension, by rank", ylabel="KL (nats)", title=title)
    save(drawing, path)


def draw_shares(path: Path, shares: Mapping[str, Tensor], label: str) -> None:
    """Draws shares of classes (C,) of several sets of images beside each other."""
    drawing = Drawing(figsize=(7, 3.5), dpi=100)
    axes = drawing.subplots()
    width = 0.8 / len(shares)
    for i, (name, share) in enumerate(shares.items()):
        places = np.arange(len(share)) + (i - (len(shares) - 1) / 2) * width
        axes.bar(places, share.numpy(), width, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True))
    axes.set(xlabel=label, ylabel="share of images")
    axes.legend(frameon=False)
    save(drawing, path)


def draw_table(path: Path, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> None:
    """Draws numbers between 0 and 1, (rows, columns), as shades with the numbers in them; NaN stays empty."""
    height = 0.32 * len(rows) + 1.6
    drawing = Drawing(figsize=(1.1 * len(columns) + 2.5, height), dpi=100)
    axes = drawing.subplots()
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, j in np.ndindex(*values.shape):
        if not math.isnan(values[i, j]):
            color = "white" if values[i, j] < 0.6 else "black"
            axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(columns)), [name.replace("_", "\n", 1).replace("_", " ") for name in columns], fontsize=8)
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows], fontsize=8)
    axes.set_title(title, fontsize=10)
    save(drawing, path)


def save(drawing: Drawing, path: Path) -> None:
    """Writes a drawing as PNG, without pyplot's global state."""
    drawing.tight_layout()
    FigureCanvasAgg(drawing).print_png(str(path))
