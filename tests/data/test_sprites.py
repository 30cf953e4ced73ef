"""Sprites: the grid, its order, its symmetries, and that reading lazily is drawing directly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vaelab.data import ImageDataModule
from vaelab.data.batches import Batches
from vaelab.data.sources import SpriteGrid
from vaelab.data.sources.sprites import COLORS, factors_of, render, sprite_masks, windows

SIZES = (3, 6, 40, 32, 32)


def place(shape: int, scale: int, rotation: int, x: int, y: int) -> torch.Tensor:
    return torch.tensor([np.ravel_multi_index((shape, scale, rotation, x, y), SIZES)])


def direct(shape: int, scale: float, degrees: float, center: tuple[int, int]) -> np.ndarray:
    """Draws a sprite pixel by pixel."""
    image = np.zeros((64, 64))
    angle = math.radians(degrees)
    for row in range(64):
        for column in range(64):
            right, up = column - center[0], center[1] - row
            u = (right * math.cos(angle) + up * math.sin(angle)) / scale
            v = (up * math.cos(angle) - right * math.sin(angle)) / scale
            p, q = u / 11.9, v / 11.9
            image[row, column] = (
                max(abs(u), abs(v)) <= 11.3,
                (u / 15.3) ** 2 + (v / 9.3) ** 2 <= 1,
                (p * p + q * q - 1) ** 3 <= p * p * q**3,
            )[shape]
    return image


@pytest.fixture(scope="module")
def sprites():
    images, test = SpriteGrid().load()
    assert test is None
    return images


def test_the_grid_is_that_of_dsprites(sprites) -> None:
    assert len(sprites) == 737_280 == math.prod(SIZES)
    assert (sprites.shape, sprites.support, sprites.levels, sprites.num_classes) == ((1, 64, 64), "binary", 2, 3)
    assert sprites.y.bincount().tolist() == [245_760] * 3
    expected = np.stack(np.unravel_index(np.arange(737_280), SIZES))
    assert list(sprites.factors) == ["shape", "scale", "rotation", "x", "y"]
    np.testing.assert_array_equal(torch.stack(list(sprites.factors.values())).numpy(), expected)


def test_a_batch_read_lazily_is_what_is_drawn_pixel_by_pixel(sprites) -> None:
    index = torch.randperm(len(sprites), generator=torch.Generator().manual_seed(0))[:12]
    x, y = sprites.batch(index)
    assert x.dtype == torch.float32
    for image, label, factors in zip(x, y, np.stack(np.unravel_index(index.numpy(), SIZES), 1), strict=True):
        shape, scale, rotation, right, down = factors.tolist()
        drawn = direct(shape, (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)[scale], 9 * rotation, (16 + right, 16 + down))
        np.testing.assert_array_equal(image[0].numpy(), drawn)
        assert int(label) == shape


def test_a_square_looks_the_same_every_90_degrees_an_ellipse_every_180_and_a_heart_never() -> None:
    masks = sprite_masks().view(3, 6, 40, -1)
    for shape, distinct in ((0, 10), (1, 20), (2, 40)):
        period = masks[shape].roll(-distinct, 1)
        assert torch.equal(masks[shape], period)
        assert all(len(of_scale.unique(dim=0)) == distinct for of_scale in masks[shape])


def test_larger_scales_hold_smaller_ones_and_areas_grow_with_the_square() -> None:
    masks = sprite_masks().view(3, 6, 40, -1).float()
    assert bool((masks[:, 1:] >= masks[:, :-1]).all())
    area = masks.sum(3).mean(2)
    torch.testing.assert_close(area / area[:, -1:], (torch.arange(5, 11) / 10).square().expand(3, 6), atol=0.02, rtol=0)


def test_positions_are_a_pixel_apart_and_nothing_leaves_the_image() -> None:
    for shape in range(3):
        corner = render(place(shape, 5, 7, 0, 0))[0, 0]
        for x, y in ((0, 31), (31, 0), (31, 31), (13, 20)):
            moved = render(place(shape, 5, 7, x, y))[0, 0]
            assert torch.equal(moved, corner.roll((y, x), (0, 1)))
            assert moved.sum() == corner.sum()
    upright = render(place(1, 5, 0, 0, 31))[0, 0].nonzero().float()
    assert upright.mean(0).tolist() == [47.0, 16.0]  # x to the right, y downwards


def test_rotations_are_anticlockwise() -> None:
    first, quarter = render(torch.cat([place(2, 5, 0, 16, 16), place(2, 5, 10, 16, 16)]))[:, 0, :63, :63].double()
    center = torch.zeros(2, 64, 64)
    center[0, :63, :63], center[1, :63, :63] = first, quarter
    around = [c.nonzero().double() - 32 for c in center]
    turned = torch.stack([-around[0][:, 1], around[0][:, 0]], 1)
    assert {tuple(p) for p in turned.tolist()} == {tuple(p) for p in around[1].tolist()}


def test_colours_are_a_first_factor_over_the_same_shapes() -> None:
    images, _ = SpriteGrid(color=True).load()
    assert (len(images), images.shape) == (6 * 737_280, (3, 64, 64))
    index = torch.arange(6) * 737_280 + 123_456
    x, _ = images.batch(index)
    assert images.subset(index).factors["color"].tolist() == list(range(6))
    plain = render(torch.tensor([123_456])).float()
    torch.testing.assert_close(x, plain * torch.tensor(COLORS).float()[:, :, None, None], rtol=0, atol=0)


def test_a_subset_is_fixed_random_and_knows_its_factors() -> None:
    small, again = (SpriteGrid(size=3000).load()[0] for _ in range(2))
    assert torch.equal(small.x, again.x)
    assert len(small.x.unique()) == len(small) == 3000
    assert torch.equal(small.y, small.factors["shape"])
    assert abs(small.factors["x"].float().mean() - 15.5) < 0.7
    part = small.subset(torch.tensor([7, 3]))
    assert torch.equal(part.batch(slice(None))[0], small.batch(torch.tensor([7, 3]))[0])
    assert torch.equal(factors_of(part.x, color=False)["y"], part.factors["y"])


@pytest.mark.parametrize("size", [0, 2, 737_281, 2.5, True, "all"])
def test_an_impossible_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"data.size must be null .*737,280"):
        SpriteGrid(size=size)  # type: ignore[arg-type]


def test_sprites_fit_the_data_module() -> None:
    data = ImageDataModule(
        source=SpriteGrid(size=200), val_size=20, test_size=30, binarize="static", normalize="standard"
    )
    data.setup()
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 150, "val": 20, "test": 30}
    assert len(torch.cat([part.x for part in data.splits.values()]).unique()) == 200
    assert (data.support, data.levels, data.num_classes) == ("binary", 2, 3)
    x, _ = data.splits["train"].batch(slice(None))
    assert data.moments == (pytest.approx([x.mean().item()]), pytest.approx([x.std(correction=0).item()]))
    batches = Batches(data.splits["train"], batch_size=64, training=True)
    seen = torch.cat([part for part, _ in batches])
    assert sorted(seen.flatten(1).sum(1).tolist()) == sorted(x.flatten(1).sum(1).tolist())


def test_what_was_first_rendered_for_inference_can_be_trained_on() -> None:
    windows.cache_clear()
    with torch.inference_mode():
        render(torch.tensor([5]))
    weight = torch.ones(1, requires_grad=True)
    x = render(torch.tensor([5])).float()
    (weight * x).sum().backward()
    assert weight.grad == x.sum()
