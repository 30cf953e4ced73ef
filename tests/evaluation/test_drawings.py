"""Charts are drawn of whatever was measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from vaelab.evaluation.drawings import draw_histograms


@pytest.mark.parametrize(
    "values", [[-1.0, -2.0, -3.0], [-1e6, -1e6], [-1.0, math.nan, -math.inf], [math.nan, math.nan]], ids=str
)
def test_a_histogram_takes_equal_and_infinite_values(tmp_path: Path, values: list[float]) -> None:
    draw_histograms(tmp_path / "a.png", {"one": torch.tensor(values), "other": torch.tensor([-5.0])}, "nats")
    shades = Image.open(tmp_path / "a.png").convert("L").getextrema()
    assert shades[0] < 128 < shades[1] == 255
