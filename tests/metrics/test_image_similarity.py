"""MSE, PSNR and SSIM."""

from __future__ import annotations

import math

import pytest
import torch

from vaelab.metrics.reconstruction import psnr, squared_error, ssim, ssim_window

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
    assert (ssim(X, NOISY) > ssim(X, X.flip(0))).all()


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
        with pytest.raises(ValueError, match="both must be images"):
            measure(X, X[:2])
    with pytest.raises(ValueError, match="data_range must be a number above 0"):
        psnr(X, X, data_range=math.inf)
