"""Samples of models that are perfect, collapsed, copying or useless."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_subjects import Oracle, by_name, shapes, subject
from torch import Tensor

from vaelab.evaluation import Figure, Samples

FAST = {"steps": 80, "subsets": 3}


def figures_of(tmp_path: Path, draws) -> dict[str, Figure]:
    return by_name(Samples(**FAST, cache=str(tmp_path))(subject(Oracle(draws=draws), tmp_path)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def fresh(number: int) -> Tensor:
    index = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:number]
    return shapes(300, 9).batch(index)[0]


def test_a_perfect_model_is_at_the_floor(cache: Path) -> None:
    figures = figures_of(cache, fresh)
    for name in ("precision", "recall", "coverage"):
        floor = figures[f"samples/{name}_floor"]
        assert abs(figures[f"samples/{name}"].value - floor.value) < 4 * floor.error + 0.05
    kid = figures["samples/kid"]
    assert abs(kid.value) < 4 * kid.error + 0.05
    assert figures["samples/accuracy"].value > 0.9
    assert figures["samples/entropy"].value == pytest.approx(math.log(3), abs=0.05)
    assert figures["samples/class_distance"].value < 0.1
    assert figures["samples/nearer_than_test"].value == pytest.approx(0.5, abs=0.1)
    assert (cache / "samples_nearest.png").is_file()


def test_noise_is_found_out(cache: Path) -> None:
    perfect, noise = figures_of(cache, fresh), figures_of(cache, lambda n: torch.rand(n, 1, 8, 8))
    for name in ("fid", "kid"):
        assert noise[f"samples/{name}"].value > 10 * abs(perfect[f"samples/{name}"].value)
    assert noise["samples/precision"].value < 0.2
    assert noise["samples/nearer_than_test"].value < 0.01


def test_mode_collapse_shows_in_entropy_and_coverage(cache: Path) -> None:
    collapsed = figures_of(cache, lambda n: fresh(1).expand(n, -1, -1, -1))
    assert collapsed["samples/entropy"].value == pytest.approx(0)
    assert collapsed["samples/class_distance"].value == pytest.approx(2 / 3, abs=0.1)
    assert sorted(collapsed[f"samples/share/class_{i}"].value for i in range(3)) == [0, 0, 1]
    assert collapsed["samples/recall"].value < 0.1
    assert collapsed["samples/coverage"].value < 0.3


def test_copies_of_training_images_are_found_out(cache: Path) -> None:
    copies = figures_of(cache, lambda n: shapes(120, 0).batch(slice(0, n))[0])
    assert copies["samples/nearest"].value == 0
    assert copies["samples/nearer_than_test"].value == 1
    assert "copies" in copies["samples/nearer_than_test"].note


def test_classes_that_were_not_trained_are_not_compared_with(cache: Path) -> None:
    case = subject(
        Oracle(draws=lambda n: shapes(3 * n, 9).subset(torch.arange(0, 3 * n, 3)).batch(slice(None))[0]), cache
    )
    only = {name: images.subset((images.y == 0).nonzero().squeeze(1)) for name, images in case.splits.items()}
    figures = by_name(Samples(**FAST)(replace(case, splits={**only, "test": case.splits["test"]})))
    assert figures["samples/precision"].protocol["images"] == 30
    assert figures["samples/precision"].value > 0.7
    assert figures["samples/entropy"].value is None
    assert "fewer than two known classes" in figures["samples/entropy"].note


def test_a_prior_without_draws_has_a_reason_instead_of_figures(tmp_path: Path) -> None:
    (figure,) = Samples(**FAST)(subject(Oracle(), tmp_path))
    assert (figure.name, figure.value, figure.note) == ("samples", None, "this prior cannot be drawn from")


def test_too_few_images_and_training_images_are_refused(tmp_path: Path) -> None:
    model = Oracle(draws=fresh)
    with pytest.raises(ValueError, match="k=5 and subsets=3 need at least 6 images, but there are 4"):
        Samples(**FAST)(subject(model, tmp_path, limit=4))
    with pytest.raises(ValueError, match="choose split=test or val"):
        Samples(**FAST)(subject(model, tmp_path, split="train"))
    with pytest.raises(ValueError, match="x must be one of auto, drawn, mean"):
        Samples(x="means")
