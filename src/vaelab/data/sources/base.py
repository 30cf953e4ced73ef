"""What every source of images promises, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vaelab.data.images import Images


class Source(ABC):
    """Finds a data set and reads it into memory.

    Attributes:
        origin: what messages call the data: its file or folder, where there is one.
    """

    origin: str

    @abstractmethod
    def load(self) -> tuple[Images, Images | None]:
        """Returns (training set, official test set or None); downloads first where that is how the data comes.

        Raises:
            ValueError: naming the file, what was expected, and the remedy.
        """


def make_images(x: Tensor, y: Tensor | None, *, origin: str) -> Images:
    """Checks arrays of images N x H x W (x C) and labels (N,) and returns them as `Images`.

    Raises:
        ValueError: naming `origin`, for a wrong shape, dtype, range or number of labels.
    """
    shape = "x".join(map(str, x.shape))
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{origin}: images must be N x H x W or N x H x W x C, but are {shape or 'a single number'}; reshape them"
        )
    if x.numel() == 0:
        raise ValueError(f"{origin} holds no images (N x H x W is {shape}); write the file again")
    if x.ndim == 4 and x.shape[1] < min(x.shape[2:]):
        raise ValueError(
            f"{origin}: images must be N x H x W x C, but {shape} looks like N x C x H x W; move the channels to the "
            "end with numpy.moveaxis(x, 1, -1)"
        )
    x = x.detach().unsqueeze(1) if x.ndim == 3 else x.detach().movedim(-1, 1)
    scale = 255
    if x.dtype == torch.bool:
        x, scale = x.to(torch.uint8), 1
    elif x.is_floating_point():
        x, scale = x.float(), 1
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{origin}: the images hold NaN or infinite values; remove them")
    elif x.dtype != torch.uint8:
        raise ValueError(
            f"{origin}: images must be uint8 (0 to 255), bool or floating point, but are {x.dtype}; convert them, for "
            "example with x.astype('uint8')"
        )
    elif int(x.max()) <= 1:
        raise ValueError(
            f"{origin}: uint8 images must have grey levels from 0 to 255, but the largest is {int(x.max())}; save "
            "binary images as bool"
        )
    return Images(x=x.contiguous(), y=check_labels(y, len(x), origin=origin), scale=scale)


def check_labels(y: Tensor | None, number: int, *, origin: str) -> Tensor:
    """Checks labels (N,), returned as int64, or attributes (N, A), as float32; without either, all labels are 0.

    Raises:
        ValueError: naming `origin`, for a wrong shape, dtype, range or number.
    """
    if y is None:
        return torch.zeros(number, dtype=torch.int64)
    attributes = y.ndim == 2 and y.is_floating_point()
    if not attributes and (y.ndim != 1 or y.is_floating_point() or y.is_complex()):
        raise ValueError(
            f"{origin}: labels must be whole numbers of shape ({number},), or floating-point attributes of shape "
            f"({number}, A), but are {y.dtype} of shape {tuple(y.shape)}; convert them, or leave them out"
        )
    if len(y) != number:
        raise ValueError(
            f"{origin} holds {number:,} images but {len(y):,} labels; give each image one, or leave them out"
        )
    if attributes:
        if not bool(torch.isfinite(y).all()):
            raise ValueError(f"{origin}: the attributes hold NaN or infinite values; remove them")
        return y.float()
    y = y.long()
    if int(y.min()) < 0:
        raise ValueError(f"{origin}: labels must count from 0, but the smallest is {int(y.min())}; renumber them")
    return y
