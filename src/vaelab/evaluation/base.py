"""What every part of an evaluation promises: from a trained model and its data to figures with their protocol."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from vaelab.data import Images
from vaelab.models import Model
from vaelab.numerics import seeded

Item = TypeVar("Item")


def quietly(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterates without showing any progress."""
    del description, total
    return iter(items)


@dataclass(frozen=True)
class Figure:
    """One number of an evaluation, or the reason why there is none.

    Attributes:
        name: what was measured, lower case with slashes: `likelihood/bound`.
        value: the number; None if the figure does not apply.
        error: standard error of the value, over images unless the protocol says otherwise.
        unit: nats, bits, ... ; empty for plain numbers.
        protocol: what the number depends on: split, number of images, k, ...
        note: a warning with its remedy, or why there is no value.
        data: a checksum of the images.
        values: (N,), what the value is the mean of: one number of every image, in their order.
    """

    name: str
    value: float | None
    error: float | None = None
    unit: str = ""
    protocol: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    data: int = field(default=0, repr=False)
    values: Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Subject:
    """A trained model with the data that it is judged on.

    Attributes:
        model: in evaluation mode, on its device.
        splits: the run's own `train`, `val` and `test` images, binarised as the run had them.
        split: the one that figures are about.
        limit: how many of its images are used at the most; None for all.
        support: what values the images hold: binary, levels, unit or real.
        protocol: what every figure depends on: the split, the binarisation, the data.
        folder: where pictures go.
        seed: of all noise.
        progress: shows how far a long loop is: (items, description, total) -> items.
        unfinished: the batches that `each` has of a loop so far, by its description; None keeps nothing.
    """

    model: Model
    splits: Mapping[str, Images]
    split: str
    limit: int | None
    support: str
    protocol: Mapping[str, Any]
    folder: Path
    seed: int = 0
    progress: Callable[..., Iterator[Any]] = quietly
    unfinished: MutableMapping[str, list[Tensor]] | None = None

    def chosen(self, limit: int | None = None) -> Images:
        """Returns the split, or a fixed random choice of at most `limit` of its images, in their order."""
        images = self.splits[self.split]
        return images.choice(min(limit or len(images), self.limit or len(images)))

    def images(self, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns images (N, C, H, W) in their own range and labels (N,) of the split, at most `limit` of them."""
        return self.chosen(limit).batch(slice(None))

    def training_images(self, number: int) -> Tensor:
        """Returns a fixed random choice of at most `number` training images (N, C, H, W)."""
        return self.splits["train"].choice(number).batch(slice(None))[0]

    def read(self, images: Images, size: int, description: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches of `size` images and labels as `batches` does, but reads only one at a time."""
        starts = range(0, len(images), size)
        for start in self.progress(starts, description, len(starts)):
            x, y = images.batch(slice(start, start + size))
            yield x.to(self.model.device, self.model.dtype), y.to(self.model.device)

    def batches(self, x: Tensor, y: Tensor, size: int, description: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches of images and labels on the model's device, with a progress bar."""
        pairs = list(zip(x.split(size), y.split(size), strict=True))
        for part, labels in self.progress(pairs, description, len(pairs)):
            yield part.to(self.model.device, self.model.dtype), labels.to(self.model.device)

    def each(
        self, x: Tensor, y: Tensor, size: int, description: str, score: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Returns score(images, labels) (B, ...) of all batches of `size` images, (N, ...), on the CPU.

        Images that were scored before an interruption are not scored again. Every batch has random numbers of its own,
        so that the interruption changes none.
        """
        found = list(self.unfinished.get(description, ())) if self.unfinished is not None else []
        done = sum(map(len, found))
        if done < len(x):
            for part, labels in self.batches(x[done:], y[done:], size, description):
                with seeded(zlib.crc32(f"{self.seed}/{description}/{done}".encode()), self.model.device):
                    found.append(score(part, labels).cpu())
                done += len(part)
                if self.unfinished is not None:
                    self.unfinished[description] = found
        return torch.cat(found)


class Evaluation:
    """A part of an evaluation."""

    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns the figures; one that does not apply has a note instead of a value."""
        raise NotImplementedError


def mean_figure(name: str, values: Tensor, *, unit: str = "nats", note: str = "", **protocol: Any) -> Figure:
    """Returns the mean of values (N,), one of each image, with its standard error s / sqrt(N)."""
    values = values.double().flatten()
    error = (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else None
    protocol = {"images": len(values), **protocol}
    return Figure(name, values.mean().item(), error, unit, protocol, note, values=values.cpu())


def bootstrap_error(score: Callable[[Tensor], float], number: int, *, resamples: int = 20, seed: int = 0) -> float:
    """Returns the standard error of a score by a bootstrap: its deviation over resamples of the images.

    Args:
        score: of the images that indices (number,) name, some of them several times.
        number: of images.
        resamples: how many sets are drawn.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    found = [score(torch.randint(number, (number,), generator=generator)) for _ in range(resamples)]
    return torch.tensor(found, dtype=torch.float64).std().item()


def no_figure(name: str, why: str) -> Figure:
    """Returns a figure without a value that says why there is none."""
    return Figure(name, None, note=why)
