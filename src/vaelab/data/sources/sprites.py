"""Sprites: shapes of every size, rotation and position, rendered when they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from vaelab.checks import is_number
from vaelab.data.images import Images
from vaelab.data.sources.base import Source

SIDE = 64
SHAPES = ("square", "ellipse", "heart")
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ROTATIONS = 40
POSITIONS = 32
COLORS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1))  # red, yellow, green, cyan, blue, magenta
RADIUS = (SIDE - POSITIONS) // 2  # no sprite reaches farther from its centre, so that none leaves the image
HALF_SIDE = 11.3  # of the largest square; its corners are 16.0 pixels from the centre
HALF_AXES = (15.3, 9.3)  # of the largest ellipse
HEART = 11.9  # pixels per unit of the heart's curve, which reaches 1.31 units from the centre


@dataclass(frozen=True, eq=False)
class Sprites(Images):
    """Sprites that are rendered when a batch of them is read: binary images of 64x64.

    `x` is the place of every image in the grid of all of them, whose factors vary in dSprites' order, the last one
    fastest: (colour,) shape, scale, rotation, horizontal and vertical position.
    """

    x: Tensor  # (N,), int64: unlike in other sets, no pixels
    scale: int = 1
    color: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, 64, 64)."""
        return (3 if self.color else 1), SIDE, SIDE

    @property
    def support(self) -> str:
        """Every value is 0 or 1."""
        return "binary"

    @property
    def levels(self) -> int:
        """There are two grey levels."""
        return 2

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factors of every image, by name: whole numbers from 0, each (N,)."""
        return factors_of(self.x, color=self.color)

    def batch(self, index: Tensor | slice, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Renders images (B, C, 64, 64), float32 in {0, 1}, and returns them with their labels (B,)."""
        place, y = self.x[index], self.y[index]
        if device is not None:
            place, y = place.to(device), y.to(device)
        return render(place, color=self.color).float(), y

    def binarized(self, how: str, *, seed: int) -> Images:
        """Returns itself: its values are 0 or 1, which every binarisation leaves as they are."""
        del how, seed
        return self


class SpriteGrid(Source):
    """The 737,280 sprites of dSprites' grid (Matthey et al. 2017), drawn here instead of downloaded.

    3 shapes x 6 scales x 40 rotations x 32 x 32 positions, in the order of the original, each image once. The label is
    the shape: square, ellipse, heart. With `color` there are six times as many, each sprite in six colours on black.

    Deviations: rotations are 9 degrees apart (the original's go from 0 to 360 degrees inclusive, so that its first and
    last are one), positions are a pixel apart, and outlines are not those of the original to the pixel.

    Args:
        size: how many of them, chosen at random by a fixed seed; None for all.
        color: three channels, and the colour as the first factor.

    Raises:
        ValueError: for a `size` below 3 or above the number of all sprites.
    """

    origin = "sprites"
    SEED = 0

    def __init__(self, *, size: int | None = None, color: bool = False) -> None:
        total = math.prod(factor_sizes(color=color).values())
        if size is not None and (not is_number(size) or not isinstance(size, int) or not 3 <= size <= total):
            raise ValueError(f"data.size must be null (all) or a whole number from 3 to {total:,}, but is {size!r}")
        if not isinstance(color, bool):
            raise ValueError(f"data.color must be true or false, but is {color!r}")
        self.size, self.total, self.color = size, total, color

    def load(self) -> tuple[Images, Images | None]:
        """Returns the sprites, in the order of the grid; they come without an official test set."""
        x = torch.arange(self.total)
        if self.size is not None:
            x = (
                torch.randperm(self.total, generator=torch.Generator().manual_seed(self.SEED))[: self.size]
                .sort()
                .values
            )
        return Sprites(x=x, y=factors_of(x, color=self.color)["shape"], color=self.color), None


def factor_sizes(*, color: bool) -> dict[str, int]:
    """Returns how many values every factor has, by name, in the order of the grid."""
    sizes = {"shape": len(SHAPES), "scale": len(SCALES), "rotation": ROTATIONS, "x": POSITIONS, "y": POSITIONS}
    return {"color": len(COLORS), **sizes} if color else sizes


def factors_of(place: Tensor, *, color: bool) -> dict[str, Tensor]:
    """Returns the factors of images by their place (N,) in the grid, each (N,)."""
    factors = {}
    for name, size in reversed(factor_sizes(color=color).items()):
        factors[name] = place % size
        place = place // size
    return dict(reversed(factors.items()))


def render(place: Tensor, *, color: bool = False) -> Tensor:
    """Returns the images at places (B,) of the grid, (B, 1, 64, 64), or (B, 3, 64, 64) in colour: uint8, 0 or 1."""
    f = factors_of(place, color=color)
    kind = (f["shape"] * len(SCALES) + f["scale"]) * ROTATIONS + f["rotation"]
    last = POSITIONS - 1
    images = windows(place.device)[kind, last - f["y"], last - f["x"]].unsqueeze(1)
    if not color:
        return images
    return images * torch.tensor(COLORS, dtype=torch.uint8, device=place.device)[f["color"]][:, :, None, None]


@cache
def windows(device: torch.device) -> Tensor:
    """Returns what is seen of each of 720 sprites through windows of 64x64, (720, 32, 32, 64, 64): 6 MB in all.

    It is a view of one larger image of each, whose middle holds the sprite: a window that lies further down shows it
    further up.
    """
    masks = sprite_masks().to(device)
    padding = POSITIONS - 1
    wide = torch.nn.functional.pad(masks, (padding,) * 4)  # (720, 95, 95)
    return wide.unfold(1, SIDE, 1).unfold(2, SIDE, 1)


def sprite_masks() -> Tensor:
    """Returns every shape, scale and rotation, centred: (720, 33, 33), uint8. A pixel is lit if its centre is inside.

    Rotations are anticlockwise.
    """
    axis = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    right, up = axis.view(1, 1, 1, -1), -axis.view(1, 1, -1, 1)
    angle = (torch.arange(ROTATIONS, dtype=torch.float64) * (2 * math.pi / ROTATIONS)).view(1, -1, 1, 1)
    scale = torch.tensor(SCALES, dtype=torch.float64).view(-1, 1, 1, 1)
    u = (right * angle.cos() + up * angle.sin()) / scale  # the sprite's own axes, (6, 40, 33, 33)
    v = (up * angle.cos() - right * angle.sin()) / scale
    square = torch.maximum(u.abs(), v.abs()) <= HALF_SIDE
    ellipse = (u / HALF_AXES[0]) ** 2 + (v / HALF_AXES[1]) ** 2 <= 1
    p, q = u / HEART, v / HEART
    heart = (p**2 + q**2 - 1) ** 3 <= p**2 * q**3
    return torch.stack([square, ellipse, heart]).flatten(0, 2).to(torch.uint8)
