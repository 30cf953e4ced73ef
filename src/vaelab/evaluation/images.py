"""What the parts of an evaluation that look at images share: ranges, labels that may be told, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from vaelab.evaluation.base import Subject
from vaelab.models import M2, Model

SMALLEST_SIDE = 56  # smaller images are enlarged by a whole factor
TEXT_SIZE = 12  # pixels


def told(model: Model, y: Tensor) -> Tensor:
    """Returns what a model may know of labels y (N, ...): nothing (-1) where it infers them itself, else all."""
    return torch.full_like(y, -1) if isinstance(model, M2) else y


def given(model: Model) -> dict[str, Any]:
    """Returns what to add to the protocol of a model that is told labels or attributes."""
    return {"given": "labels or attributes"} if model.condition.dim and not isinstance(model, M2) else {}


def unknown_classes(subject: Subject, y: Tensor) -> list[int]:
    """Returns the classes among labels y (N,) that neither training nor validation images have."""
    if y.is_floating_point():
        return []
    known = torch.cat([subject.splits[name].y.unique() for name in ("train", "val")])
    return sorted(set(y.unique().tolist()) - set(known.tolist()) - {-1})


def reconstructed(subject: Subject, x: Tensor, y: Tensor, description: str, *, size: int = 500) -> Tensor:
    """Returns E[x|z] at the posterior mean for images x (N, C, H, W) of labels y, on the CPU."""
    model = subject.model
    parts = subject.batches(x, told(model, y), size, description)
    return torch.cat([model.reconstruct(part, context).cpu() for part, context in parts]).to(x.dtype)


def value_range(subject: Subject) -> tuple[float, float]:
    """Returns the smallest and the largest value that images can have; of real values, what the training set has."""
    if subject.support != "real":
        return 0.0, 1.0
    low, high = subject.training_images(10_000).aminmax()
    return float(low), float(high)


def levels(subject: Subject) -> int | None:
    """Returns how many grey levels k / (levels - 1) the images have, or None for floating-point values."""
    return 2 if subject.support == "binary" else subject.splits[subject.split].levels


def in_support(subject: Subject, x: Tensor) -> Tensor:
    """Returns the nearest images that the data could hold: cut off at its range, and rounded to its grey levels."""
    if subject.support == "real":
        return x
    steps = (levels(subject) or 0) - 1
    x = x.clamp(0, 1)
    return (x * steps).round() / steps if steps > 0 else x


def save_rows(file: Path, rows: Sequence[tuple[str, Tensor]], shown: tuple[float, float]) -> None:
    """Saves rows of images (N, C, H, W) below each other with their names, mapping `shown` to black and white.

    Of images with neither 1 nor 3 channels the first one is shown.
    """
    low, high = shown
    images = torch.cat([row for _, row in rows]).float().cpu()
    images = images if images.shape[1] in (1, 3) else images[:, :1]
    factor = max(1, round(SMALLEST_SIDE / min(images.shape[2:])))
    images = ((images - low) / (high - low)).clamp(0, 1).nan_to_num()
    images = functional.interpolate(images, scale_factor=factor, mode="nearest")
    grid = to_pil_image(make_grid(images, nrow=len(rows[0][1]), pad_value=0.5))
    font = ImageFont.load_default(TEXT_SIZE)
    margin = 2 * TEXT_SIZE + round(max(font.getlength(name) for name, _ in rows))
    canvas = Image.new("RGB", (margin + grid.width, grid.height), "white")
    canvas.paste(grid, (margin, 0))
    for i, (name, _) in enumerate(rows):
        middle = (i + 0.5) * grid.height / len(rows)
        ImageDraw.Draw(canvas).text((TEXT_SIZE, middle), name, fill="black", font=font, anchor="lm")
    canvas.save(file)
