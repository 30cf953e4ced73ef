"""What every source of images promises, and the checks that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from vaelab.data.images import Images


class Source(ABC):
    """Finds a data set and reads it into memory."""

    @abstractmethod
    def load(self) -> tuple[Images, Images | None]:
        """Returns (training set, official test set or None); downloads first where that is how the data comes."""


def make_images(x: Tensor, y: Tensor | None, *, origin: str) -> Images:
    """Checks arrays of images N x H x W (x C) and labels (N,) and returns them as `Images`.

    Raises:
        ValueError: naming `origin`, for a wrong shape, dtype, range or number of labels.
    """
    if x.ndim not in (3, 4):
        raise ValueError(f"{origin}: images must be N x H x W or N x H x W x C, but are {'x'.join(map(str, x.shape))}")
    if x.ndim == 4 and x.shape[-1] > 16:
        raise ValueError(
            f"{origin}: images must be N x H x W x C with the channels last, but {x.shape[-1]} channels were found "
            f"({'x'.join(map(str, x.shape))}); transpose them"
        )
    if len(x) == 0:
        raise ValueError(f"{origin} holds no images")
    x = x.unsqueeze(1) if x.ndim == 3 else x.movedim(-1, 1)
    scale = 255
    if x.dtype == torch.bool:
        x, scale = x.to(torch.uint8), 1
    elif x.is_floating_point():
        x, scale = x.float(), 1
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{origin}: the images hold NaN or infinite values; remove them")
    elif x.dtype != torch.uint8:
        raise ValueError(f"{origin}: images must be uint8 (0 to 255), bool or floating point, but are {x.dtype}; convert them")
    if y is None:
        y = torch.zeros(len(x), dtype=torch.int64)
    if y.ndim != 1 or y.is_floating_point() or y.is_complex():
        raise ValueError(f"{origin}: labels must be whole numbers of shape ({len(x)},), but are {y.dtype} of shape {tuple(y.shape)}")
    if len(y) != len(x):
        raise ValueError(f"{origin} holds {len(x)} images but {len(y)} labels")
    if int(y.min()) < 0:
        raise ValueError(f"{origin}: labels must count from 0, but the smallest is {int(y.min())}")
    return Images(x=x.contiguous(), y=y.long(), scale=scale)
