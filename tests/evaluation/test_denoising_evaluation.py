"""Denoising by models whose answers are known, and by filters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from image_subjects import Oracle, by_name, subject

from vaelab.evaluation import Denoising
from vaelab.evaluation.denoising import median, total_variation

FAST = {"images": 20, "tuning_images": 5}


def test_a_model_that_returns_its_input_gains_nothing(tmp_path: Path) -> None:
    figures = by_name(Denoising(**FAST)(subject(Oracle(), tmp_path)))
    for corruption in ("gaussian", "masking", "salt_and_pepper"):
        for measure in ("psnr_gain", "ssim_gain"):
            figure = figures[f"denoising/{corruption}/model/{measure}"]
            assert (figure.value, figure.error) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
        assert (tmp_path / f"denoising_{corruption}.png").is_file()


def test_a_model_that_knows_the_clean_images_gains_all_that_was_lost(tmp_path: Path) -> None:
    case = subject(Oracle(), tmp_path)
    clean, _ = case.images(limit=20)
    case.model.clean = lambda x: clean
    figures = by_name(Denoising(**FAST, masking=0, salt_and_pepper=0)(case))
    lost = 100 - figures["denoising/gaussian/corrupted/psnr"].value
    assert figures["denoising/gaussian/model/psnr_gain"].value == pytest.approx(lost)
    assert figures["denoising/gaussian/model/psnr_gain"].value > figures["denoising/gaussian/tv/psnr_gain"].value + 20
    assert not any("masking" in name for name in figures)


def test_a_model_that_answers_grey_is_worse_than_both_filters_on_smooth_images(tmp_path: Path) -> None:
    case = subject(Oracle(clean=lambda x: torch.full_like(x, 0.9)), tmp_path)
    for images in case.splits.values():
        images.x[:] = 120  # constant images, which filters clean well
    figures = by_name(Denoising(**FAST, gaussian=0.1)(case))
    assert figures["denoising/gaussian/tv/psnr_gain"].value > 5
    assert figures["denoising/salt_and_pepper/median/psnr_gain"].value > 5
    assert figures["denoising/gaussian/model/psnr_gain"].value < 0


def test_filters_leave_constant_images_and_the_median_removes_a_lone_pixel() -> None:
    x = torch.full((2, 1, 9, 9), 0.4)
    assert torch.allclose(total_variation(x, 0.5), x)
    x[:, 0, 4, 4] = 1
    assert torch.allclose(median(x, 3), torch.full_like(x, 0.4))


def test_corrupted_images_stay_where_the_likelihood_scores_them(tmp_path: Path) -> None:
    seen = []
    model = Oracle(clean=lambda x: seen.append(x.aminmax()) or x)  # reconstruct() would refuse others besides
    Denoising(**FAST, gaussian=2.0)(subject(model, tmp_path))
    assert all(low >= 0 and high <= 1 for low, high in seen)


def test_impossible_corruptions_are_refused() -> None:
    with pytest.raises(ValueError, match="must not all be 0"):
        Denoising(gaussian=0, masking=0, salt_and_pepper=0)
    with pytest.raises(ValueError, match=r"masking must lie in \[0, 1\)"):
        Denoising(masking=1)
