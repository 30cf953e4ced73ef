"""How many bits ordinary programs need for images: what a model's code length is to be compared with."""

from __future__ import annotations

import io
import math
import zlib

import numpy as np
import torch
from torch import Tensor

from vaelab.metrics.reconstruction import as_levels


def raw_bits(shape: tuple[int, ...], levels: int) -> float:
    """Returns the bits of an image (C, H, W) without compression, C H W log2(levels): 8 a value for 256 grey levels.

    Raises:
        ValueError: for fewer than 2 levels, which hold nothing.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2, but are {levels}")
    return math.prod(shape) * math.log2(levels)


def png_bits(x: Tensor, *, levels: int) -> Tensor:
    """Returns the bits of the PNG file of every image, (N,), of images x (N, C, H, W) with values k / (levels - 1).

    Files hold one bit a pixel for two levels, 8 otherwise, and are optimised by Pillow; of images with neither 1 nor 3
    channels each channel has a file. Every file has a head of some 70 bytes, which counts.

    Raises:
        ValueError: for no images, values that are no such levels, or more than 256 of them.
    """
    return torch.tensor([sum(map(_png, _planes(image, levels))) for image in as_levels(x, levels)], dtype=torch.float64)


def zlib_bits(x: Tensor, *, levels: int) -> Tensor:
    """Returns the bits of every image (N,), packed by zlib at its best, of images x (N, C, H, W): see `png_bits`."""
    packed = [len(zlib.compress(_packed(image, levels), 9)) for image in as_levels(x, levels)]
    return 8 * torch.tensor(packed, dtype=torch.float64)


def zlib_bits_together(x: Tensor, *, levels: int) -> float:
    """Returns the bits per image of all images x (N, C, H, W) in one stream of zlib, which pays for its head once."""
    return 8 * len(zlib.compress(_packed(as_levels(x, levels), levels), 9)) / len(x)


def _packed(values: np.ndarray, levels: int) -> bytes:
    return (np.packbits(values) if levels == 2 else values).tobytes()


def _planes(image: np.ndarray, levels: int) -> list[np.ndarray]:
    if len(image) == 3 and levels > 2:
        return [np.moveaxis(image, 0, -1)]
    return [plane.astype(bool) if levels == 2 else plane for plane in image]


def _png(image: np.ndarray) -> int:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return 8 * file.tell()
