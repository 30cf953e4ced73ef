"""Bits that ordinary programs need."""

from __future__ import annotations

import io
import math

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


def test_the_same_pixels_in_random_places_cost_more() -> None:
    i = torch.arange(16)
    x = ((i[:, None] // 4 + i // 4) % 2).float().expand(3, 1, 16, 16)  # a chess board
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[..., order].view_as(x)
    for bits in (png_bits, zlib_bits):
        assert (bits(x, levels=2) < bits(shuffled, levels=2)).all()


def test_every_image_is_by_itself_and_the_order_of_images_is_theirs() -> None:
    x = torch.cat([drawn(17), torch.zeros(1, 1, 16, 16)])
    for bits in (png_bits, zlib_bits):
        found = bits(x, levels=17)
        assert torch.equal(bits(x.flip(0), levels=17), found.flip(0))
        assert torch.equal(bits(x[2:3], levels=17), found[2:3])


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
    with pytest.raises(ValueError, match="levels must be at least 2, but are 1"):
        raw_bits((1, 28, 28), 1)


@pytest.mark.parametrize("bits", [png_bits, zlib_bits, zlib_bits_together])
def test_what_is_no_image_is_refused(bits) -> None:
    with pytest.raises(ValueError, match="at least one image is needed"):
        bits(torch.zeros(0, 1, 8, 8), levels=2)
    for wrong in (math.nan, -1.0, 2.0):
        with pytest.raises(ValueError, match="must have 2 levels k / 1, but have other values; round them"):
            bits(torch.full((1, 1, 8, 8), wrong), levels=2)
