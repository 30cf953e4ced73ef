"""How near an image is to another one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaelab.checks import positive

WINDOW = 11  # pixels: the side of SSIM's Gaussian window of sigma 1.5, cut off at 3.5 sigma
UNIFORM = 7  # of the uniform window for smaller images
BEST_PSNR = 100.0  # dB, in the place of infinity for equal images


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean squared error over the values of an image, (N,), of images x and y (N, C, H, W).

    Raises:
        ValueError: for images of different shapes, or values that are not finite.
    """
    _check_alike(x, y)
    return (x.double() - y.double()).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor, *, data_range: float) -> Tensor:
    """Returns the peak signal-to-noise ratio in dB, (N,), of images x and y (N, C, H, W): 10 log10(R^2 / MSE).

    Equal images count as 100 dB, and no image counts more.

    Args:
        x: images in their own range.
        y: others.
        data_range: R, the largest minus the smallest value that an image can have.

    Raises:
        ValueError: as `squared_error`, or for a `data_range` that is not above 0.
    """
    positive("data_range", data_range)
    error = squared_error(x, y) / data_range**2
    return -10 * error.clamp(min=10 ** (-BEST_PSNR / 10)).log10()


def ssim_window(height: int, width: int) -> int:
    """Returns the side of SSIM's window: 11 (Gaussian), or, for smaller images, at most 7 (uniform), always odd.

    Raises:
        ValueError: for images of less than 3x3.
    """
    side = min(height, width)
    if side < 3:
        raise ValueError(f"SSIM needs images of at least 3x3, but they are {height}x{width}")
    return WINDOW if side >= WINDOW else min(UNIFORM, side - 1 + side % 2)


def ssim(x: Tensor, y: Tensor, *, data_range: float) -> Tensor:
    """Returns the structural similarity, (N,), of images x and y (N, C, H, W): 1 for equal ones (Wang et al. 2004).

    SSIM = mean over windows of (2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)), equation 13,
    with c1 = (0.01 R)^2, c2 = (0.03 R)^2, a Gaussian window of sigma 1.5, and windows inside the image only. Deviation:
    images of less than 11 pixels have a uniform window (see `ssim_window`).

    Args:
        x: images in their own range.
        y: others.
        data_range: R, the largest minus the smallest value that an image can have.

    Raises:
        ValueError: as `squared_error`, or for images of less than 3x3, or a `data_range` that is not above 0.
    """
    from skimage.metrics import structural_similarity

    _check_alike(x, y)
    positive("data_range", data_range)
    window = ssim_window(*x.shape[2:])
    kind = {"gaussian_weights": True, "sigma": 1.5} if window == WINDOW else {"win_size": window}
    values = [
        structural_similarity(a, b, data_range=data_range, channel_axis=0, use_sample_covariance=False, **kind)
        for a, b in zip(x.cpu().double().numpy(), y.cpu().double().numpy(), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


def _check_alike(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.ndim != 4 or not len(x):
        raise ValueError(
            f"both must be N >= 1 images (N, C, H, W) of one shape, but are {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("images must be finite, but some values are NaN or infinite; train anew")


def as_levels(x: Tensor, levels: int) -> np.ndarray:
    """Returns images x (N, C, H, W) with values k / (levels - 1) as whole numbers k, uint8.

    Raises:
        ValueError: for no images, values that are no such levels, or more than 256 of them.
    """
    if not len(x):
        raise ValueError("at least one image is needed, but there is none")
    if not 2 <= levels <= 256:
        raise ValueError(f"levels must lie between 2 and 256, but are {levels}")
    scaled = x.cpu().double() * (levels - 1)
    whole = scaled.round()
    if not (((scaled - whole).abs() <= 1e-3) & (whole >= 0) & (whole < levels)).all():  # nor does NaN pass
        raise ValueError(f"images must have {levels} levels k / {levels - 1}, but have other values; round them first")
    return whole.to(torch.uint8).numpy()
