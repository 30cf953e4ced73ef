"""A set of images as one tensor."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

SUPPORTS = ("binary", "levels", "unit", "real")  # each holds the ones before it
BINARIZATIONS = ("none", "dynamic", "static", "threshold")
CHUNK = 2**20  # values converted to floats at a time, when all images are read


@dataclass(frozen=True, eq=False)
class Images:
    """N images of C channels with integer labels, or with A real attributes each.

    `x` is stored as it came: uint8 with values 0 to `scale`, or floating point (then `scale` is 1). Batches are scaled
    to floats, on the CPU or an accelerator; the set as a whole never is.
    """

    x: Tensor  # (N, C, H, W), uint8 or float32
    y: Tensor  # (N,), int64; or (N, A), float32
    scale: int = 255

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    @cached_property
    def support(self) -> str:
        """What values an image holds: `binary` (0 or 1), `levels` (k / scale), `unit` ([0, 1]) or `real`."""
        if not self.x.is_floating_point():
            return "binary" if self.scale == 1 else "levels"
        low, high = self.x.aminmax()
        if low < 0 or high > 1:
            return "real"
        return "binary" if bool(((self.x == 0) | (self.x == 1)).all()) else "unit"

    @property
    def levels(self) -> int | None:
        """How many grey levels k / scale there are, or None if the values are floating point."""
        return None if self.x.is_floating_point() else self.scale + 1

    @property
    def num_classes(self) -> int:
        """The number of classes, counting from label 0; 0 if there are attributes instead of labels."""
        return 0 if self.y.is_floating_point() else int(self.y.max()) + 1

    @property
    def num_attributes(self) -> int:
        """The number of attributes A of an image; 0 if there are labels instead."""
        return self.y.shape[1] if self.y.is_floating_point() else 0

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factors that every image was made from, by name: whole numbers from 0, each (N,); empty if not known."""
        return {}

    def batch(self, index: Tensor | slice, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Returns images (B, C, H, W) as float32 in their own range, and labels (B,).

        Args:
            index: which ones; a tensor lies where the set lies.
            device: where to convert them and leave them; None stays where the set lies.
        """
        # index_select copies whole images; x[index] goes value by value and takes three times as long on a CPU.
        x = self.x[index] if isinstance(index, slice) else self.x.index_select(0, index)
        y = self.y[index]
        if device is not None:
            x, y = x.to(device), y.to(device)
        if not x.is_floating_point():
            x = x.float()
            if self.scale != 1:
                x = x.div_(self.scale)
        return x, y

    def subset(self, index: Tensor) -> Images:
        """Returns the images at `index`, in that order."""
        return replace(self, x=self.x.index_select(0, index), y=self.y[index])

    def choice(self, number: int) -> Images:
        """Returns at most `number` of the images, in their order: a fixed choice, for they may lie class by class."""
        if number >= len(self):
            return self
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:number]
        return self.subset(chosen.sort().values.to(self.x.device))

    def to(self, device: torch.device) -> Images:
        """Returns the set on `device`."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def moments(self) -> tuple[list[float], list[float]]:
        """Returns the mean and the standard deviation of every channel, in the data's own range."""
        total = torch.zeros(self.shape[0], dtype=torch.float64)
        squares = torch.zeros_like(total)
        for x in self._chunks():
            total += x.double().sum((0, 2, 3))
            squares += x.double().square().sum((0, 2, 3))
        count = len(self) * self.shape[1] * self.shape[2]
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        return mean.tolist(), std.tolist()

    def binarized(self, how: str, *, seed: int) -> Images:
        """Returns binary images: `static` draws every value x as Bernoulli(x) once by `seed`; `threshold` is x >= 0.5.

        Raises:
            ValueError: if there are values outside [0, 1].
        """
        self.check_binarizable(how)
        generator = torch.Generator().manual_seed(seed)
        drawn = (bernoulli(x, generator) if how == "static" else x >= 0.5 for x in self._chunks())
        return Images(x=torch.cat([x.to(torch.uint8) for x in drawn]), y=self.y, scale=1)

    def check_binarizable(self, how: str) -> None:
        """Raises a ValueError if there are values that are no probabilities."""
        if self.support == "real":
            raise ValueError(
                f"data.binarize={how} reads values as probabilities, but this data lies outside [0, 1]; rescale it or "
                "use data.binarize=none with model/likelihood=gaussian"
            )

    def _chunks(self) -> Iterator[Tensor]:
        """Yields all images as floats, a few megabytes at a time."""
        step = max(1, CHUNK // math.prod(self.shape))
        for start in range(0, len(self), step):
            yield self.batch(slice(start, start + step))[0]


def bernoulli(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Draws 0 or 1 with the probabilities `probs`, as floats of their shape (twice as fast as torch.bernoulli)."""
    return torch.rand(probs.shape, generator=generator, device=probs.device).lt_(probs)


def split(images: Images, size: int, *, seed: int) -> tuple[Images, Images]:
    """Splits `images` into (rest, part): `part` holds `size` of them, chosen by `seed` alone; both keep the order."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.subset(order[size:].sort().values), images.subset(order[:size].sort().values)
