"""MSE, PSNR and SSIM."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from vaelab.metrics import reconstruction
from vaelab.metrics.reconstruction import as_levels, squared_error, ssim_window

psnr, ssim = partial(reconstruction.psnr, data_range=1.0), partial(reconstruction.ssim, data_range=1.0)

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NOISY = X + 0.1 * torch.randn(X.shape, generator=torch.Generator().manual_seed(1))


def test_equal_images_are_perfect() -> None:
    assert (squared_error(X, X) == 0).all()
    assert (psnr(X, X) == 100).all()
    assert torch.allclose(ssim(X, X), torch.ones(4, dtype=torch.float64))


def test_a_constant_shift_has_a_known_psnr() -> None:
    assert psnr(X, X + 0.1).tolist() == pytest.approx([20.0] * 4, abs=1e-4)
    assert psnr(X, X + 0.1, data_range=10.0).tolist() == pytest.approx([40.0] * 4, abs=1e-4)


def test_unrelated_images_have_no_similar_structure() -> None:
    assert ssim(X, X.flip(0)).abs().max() < 0.2
    for measure in (ssim, psnr):
        assert (measure(X, NOISY) > measure(X, X.flip(0))).all()


def test_a_grey_image_and_that_of_another_have_the_psnr_of_their_variance() -> None:
    noise = torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    assert float(psnr(noise, torch.full_like(noise, 0.5)).mean()) == pytest.approx(10 * math.log10(12), abs=0.05)
    assert float(psnr(noise, noise.flip(0)).mean()) == pytest.approx(10 * math.log10(6), abs=0.05)
    assert ssim(noise, torch.full_like(noise, 0.5)).abs().max() < 0.05  # no structure at all


@pytest.mark.parametrize("measure", [squared_error, psnr, ssim])
def test_every_image_is_by_itself_and_the_order_of_images_is_theirs(measure) -> None:
    expected = measure(X, NOISY)
    assert torch.equal(measure(X.flip(0), NOISY.flip(0)), expected.flip(0))
    assert torch.equal(measure(X[1:2], NOISY[1:2]), expected[1:2])


@pytest.mark.parametrize("side", [8, 16])
def test_units_and_order_do_not_matter(side: int) -> None:
    x, y = X[..., :side, :side], NOISY[..., :side, :side]
    for measure in (ssim, psnr):
        expected = measure(x, y)
        assert torch.allclose(measure(10 * x, 10 * y, data_range=10.0), expected, atol=1e-5)
        assert torch.allclose(measure(y, x), expected)
        assert torch.allclose(measure(x.flip(-1), y.flip(-1)), expected)


def test_ssim_of_two_constant_images_is_its_formula() -> None:
    a, b, c1 = 0.3, 0.6, 0.01**2
    found = ssim(torch.full((1, 1, 12, 12), a), torch.full((1, 1, 12, 12), b))
    assert float(found) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-5)


def test_the_window_fits_the_image() -> None:
    assert [ssim_window(n, 28) for n in (28, 11, 10, 8, 6, 3)] == [11, 11, 7, 7, 5, 3]
    with pytest.raises(ValueError, match="at least 3x3, but they are 2x28"):
        ssim_window(2, 28)


def test_wrong_input_is_refused() -> None:
    for measure in (squared_error, psnr, ssim):
        with pytest.raises(ValueError, match=r"images \(N, C, H, W\) of one shape"):
            measure(X, X[:2])
        with pytest.raises(ValueError, match="both must be N >= 1 images"):
            measure(X[:0], X[:0])
        with pytest.raises(ValueError, match="images must be finite"):
            measure(X, X / 0)
    for measure in (psnr, ssim):
        for wrong in (math.inf, 0.0):
            with pytest.raises(ValueError, match="data_range must be a number above 0"):
                measure(X, X, data_range=wrong)
        with pytest.raises(TypeError, match="data_range"):  # 1 would be wrong for data of another range
            measure.func(X, X)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_are_whole_numbers_again(levels: int) -> None:
    k = torch.arange(levels).view(-1, 1, 1, 1)
    assert as_levels(k / (levels - 1), levels).ravel().tolist() == list(range(levels))
