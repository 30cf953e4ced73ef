"""Bits that ordinary programs need."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.metrics.compression import png_bits, raw_bits, zlib_bits, zlib_bits_together


def drawn(levels: int, channels: int = 1, number: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(levels, (number, channels, 16, 16), generator=generator).float() / (levels - 1)


def test_raw_bits_are_those_of_the_grey_levels() -> None:
    assert raw_bits((3, 32, 32), 256) == 8 * 3072
    assert raw_bits((1, 28, 28), 2) == 784


@pytest.mark.parametrize(("levels", "channels"), [(2, 1), (256, 1), (256, 3), (17, 2)])
def test_noise_cannot_be_compressed_and_a_constant_can(levels: int, channels: int) -> None:
    noise = drawn(levels, channels)
    entropy = raw_bits(noise.shape[1:], levels)
    for bits in (png_bits, zlib_bits):
        assert (bits(noise, levels=levels) >= entropy).all()
        assert (bits(torch.zeros_like(noise), levels=levels) < bits(noise, levels=levels)).all()
    assert zlib_bits_together(noise, levels=levels) >= entropy


def test_equal_images_together_cost_little_more_than_one() -> None:
    x = drawn(256, number=1).repeat(20, 1, 1, 1)
    assert zlib_bits_together(x, levels=256) < 0.15 * zlib_bits(x, levels=256).mean()


def test_a_png_file_is_as_long_as_it_says() -> None:
    x = drawn(256)
    file = io.BytesIO()
    Image.fromarray((x[0, 0] * 255).round().numpy().astype(np.uint8)).save(file, "PNG", optimize=True)
    assert png_bits(x, levels=256)[0] == 8 * len(file.getvalue())


def test_values_between_the_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 2 levels"):
        png_bits(drawn(256), levels=2)
    with pytest.raises(ValueError, match="levels must lie between 2 and 256"):
        zlib_bits(drawn(256), levels=1000)
