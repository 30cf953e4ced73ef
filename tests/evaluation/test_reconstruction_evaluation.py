"""What reconstructions and code lengths say of models whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from image_subjects import Oracle, by_name, subject

from vaelab.evaluation import Reconstruction
from vaelab.likelihoods import DiscretizedLogisticLikelihood
from vaelab.metrics.compression import png_bits


def test_a_perfect_model_loses_nothing(tmp_path: Path) -> None:
    figures = by_name(Reconstruction()(subject(Oracle(), tmp_path)))
    assert figures["reconstruction/mse"].value == 0
    assert figures["reconstruction/psnr"].value == 100
    assert figures["reconstruction/ssim"].value == pytest.approx(1)
    assert (tmp_path / "reconstruction.png").is_file()


def test_another_images_reconstruction_is_useless(tmp_path: Path) -> None:
    figures = by_name(Reconstruction()(subject(Oracle(clean=lambda x: x.roll(1, 0)), tmp_path)))
    assert figures["reconstruction/ssim"].value < 0.5
    assert figures["reconstruction/psnr"].value < 12


def test_the_elbo_of_a_uniform_model_is_the_raw_size(tmp_path: Path) -> None:
    def uniform(x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x),), -64 * math.log(256))

    model = Oracle(log_px=uniform, kl=2.0, likelihood=DiscretizedLogisticLikelihood(levels=256))
    figures = by_name(Reconstruction()(subject(model, tmp_path)))
    assert figures["compression/raw"].value == 512
    assert figures["compression/rate"].value == pytest.approx(2.0)
    assert figures["compression/distortion"].value == pytest.approx(64 * math.log(256))
    assert figures["compression/bits"].value == pytest.approx(512 + 2 / math.log(2))
    assert figures["compression/of_raw"].value == pytest.approx(1 + 2 / math.log(2) / 512)
    x, _ = subject(model, tmp_path).images()
    png = float(png_bits(x, levels=256).mean())
    assert figures["compression/of_png"].value == pytest.approx((512 + 2 / math.log(2)) / png)


def test_a_pseudo_likelihood_is_no_code_length_and_a_plain_code_has_no_rate(tmp_path: Path) -> None:
    figures = by_name(Reconstruction()(subject(Oracle(), tmp_path)))
    assert figures["compression/bits"].value is None
    assert "gives levels data no probability" in figures["compression/bits"].note
    assert figures["compression/rate"].value is not None
    figures = by_name(Reconstruction()(subject(Oracle(kl=None), tmp_path)))
    assert figures["compression/rate"].value is None
    assert "deterministic code" in figures["compression/rate"].note
    assert figures["compression/png"].value is not None


def test_log_px_at_the_mean_is_that_of_p_x(tmp_path: Path) -> None:
    case = subject(Oracle(), tmp_path)
    x, _ = case.images()
    expected = -(x.square().sum((1, 2, 3)) + 64 * math.log(2 * math.pi)) / 2
    figure = by_name(Reconstruction()(case))["reconstruction/log_px_at_mean"]
    assert figure.value == pytest.approx(float(expected.mean()), rel=1e-5)
    assert figure.error == pytest.approx(float(expected.std() / math.sqrt(90)), rel=1e-4)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="draws must be a whole number of at least 1"):
        Reconstruction(draws=0)
