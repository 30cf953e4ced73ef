"""What the tests of the data share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vaelab.data import ImageDataModule, Images
from vaelab.data.sources import Source


class Memory(Source):
    """Images that are already there."""

    origin = "memory"

    def __init__(self, train: Images, test: Images | None = None) -> None:
        self.train, self.test = train, test

    def load(self) -> tuple[Images, Images | None]:
        return self.train, self.test


@pytest.fixture
def numbered() -> Callable[..., Images]:
    """numbered(n): grey images of 2x3 whose labels are their numbers, so that a batch tells which images it holds."""

    def make(n: int, first: int = 0) -> Images:
        generator = torch.Generator().manual_seed(n)
        x = torch.randint(0, 256, (n, 1, 2, 3), dtype=torch.uint8, generator=generator)
        return Images(x=x, y=torch.arange(first, first + n))

    return make


@pytest.fixture
def module() -> Callable[..., ImageDataModule]:
    """module(train, test, key=value, ...): a data module over images that are already there, set up."""

    def make(train: Images, test: Images | None = None, **options: object) -> ImageDataModule:
        data = ImageDataModule(source=Memory(train, test), **{"val_size": 0.1, **options})
        data.setup()
        return data

    return make
