"""Whether passing corrupted images through the model cleans them, against filters that know nothing of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.checks import at_least_zero, fraction, positive_int
from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.evaluation.images import given, reconstructed, save_rows, value_range
from vaelab.metrics.reconstruction import psnr, ssim, ssim_window
from vaelab.networks import Corruption, GaussianNoise, Masking, SaltAndPepper

COLUMNS = 12
TV_WEIGHTS = (0.05, 0.1, 0.2, 0.4, 0.8)
MEDIAN_SIZES = (3, 5)
Filter = Callable[[Tensor], Tensor]


class Denoising(Evaluation):
    """PSNR and SSIM gained over corrupted images by E[x|z] at their posterior mean, by total variation and by a median.

    gain = PSNR(x, f(corrupted x)) - PSNR(x, corrupted x), the same images for all f. The strength of both filters
    (Chambolle 2004; a median over squares of pixels) is the one with the highest PSNR on corrupted training images; the
    model is taken as it is, with and without a corruption while training.

    Args:
        gaussian: standard deviation of Gaussian noise, in units of the data; 0 leaves it out. What leaves the range of
            the data is cut off, because a likelihood on [0, 1] refuses it.
        masking: probability of a value to be 0; 0 leaves it out.
        salt_and_pepper: probability of a value to be smallest or largest; 0 leaves it out.
        images: how many at the most.
        tuning_images: training images by which the filters' strength is chosen.

    Raises:
        ValueError: for a number outside its range, or if all corruptions are left out.
    """

    def __init__(
        self,
        *,
        gaussian: float = 0.3,
        masking: float = 0.3,
        salt_and_pepper: float = 0.2,
        images: int = 500,
        tuning_images: int = 50,
    ) -> None:
        self.levels = {
            "gaussian": at_least_zero("gaussian", gaussian),
            "masking": fraction("masking", masking),
            "salt_and_pepper": fraction("salt_and_pepper", salt_and_pepper),
        }
        if not any(self.levels.values()):
            raise ValueError("gaussian, masking and salt_and_pepper must not all be 0: nothing would be corrupted")
        self.images = positive_int("images", images)
        self.tuning_images = positive_int("tuning_images", tuning_images)

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `denoising/CORRUPTION/...` and saves `denoising_CORRUPTION.png`."""
        x, y = subject.images(self.images)
        clean = subject.training_images(self.tuning_images)
        figures: list[Figure] = []
        for name, level in self.levels.items():
            if level:
                corrupt = self._corruption(subject, name, level)
                figures += self._compare(subject, f"denoising/{name}", corrupt, level, (x, y), clean)
        return figures

    def _corruption(self, subject: Subject, name: str, level: float) -> Filter:
        low, high = value_range(subject)
        kinds: dict[str, Callable[[], Corruption]] = {
            "gaussian": lambda: GaussianNoise(std=level),
            "masking": lambda: Masking(probability=level),
            "salt_and_pepper": lambda: SaltAndPepper(probability=level, low=low, high=high),
        }
        kind = kinds[name]()
        return lambda x: kind.corrupt(x) if subject.support == "real" else kind.corrupt(x).clamp(0, 1)

    def _compare(
        self,
        subject: Subject,
        name: str,
        corrupt: Filter,
        level: float,
        images: tuple[Tensor, Tensor],
        clean: Tensor,
    ) -> list[Figure]:
        x, y = images
        shown = value_range(subject)
        span = shown[1] - shown[0]
        noisy = corrupt(x)
        tuning = (clean, corrupt(clean))
        protocol: dict[str, Any] = {"level": level, "range": span, "cut_off": subject.support != "real"}
        results: dict[str, tuple[Tensor, dict[str, Any]]] = {
            "model": (reconstructed(subject, noisy, y, name), {"z": "posterior mean", **given(subject.model)})
        }
        filters: dict[str, tuple[Callable[[Tensor, Any], Tensor], list[Any]]] = {
            "tv": (total_variation, [weight * span for weight in TV_WEIGHTS]),
            "median": (median, list(MEDIAN_SIZES)),
        }
        for label, (make, strengths) in filters.items():
            strength = max(strengths, key=lambda s: float(psnr(tuning[0], make(tuning[1], s), data_range=span).mean()))
            parts = [make(part, strength) for part, _ in subject.batches(noisy, y, 100, f"{name}, {label}")]
            results[label] = (torch.cat(parts), {"strength": strength, "chosen_on": f"{len(clean)} training images"})
        rows = [("clean", x), ("corrupted", noisy), *((label, found) for label, (found, _) in results.items())]
        picture = subject.folder / f"{name.replace('/', '_')}.png"
        save_rows(picture, [(label, row[:COLUMNS]) for label, row in rows], shown)
        before = psnr(x, noisy, data_range=span)
        figures = [mean_figure(f"{name}/corrupted/psnr", before, unit="dB", **protocol)]
        try:
            window = ssim_window(*x.shape[2:])
            similar = ssim(x, noisy, data_range=span)
            figures.append(mean_figure(f"{name}/corrupted/ssim", similar, unit="", window=window, **protocol))
        except ValueError as error:
            window = 0
            figures.append(no_figure(f"{name}/corrupted/ssim", str(error)))
        for label, (found, how) in results.items():
            gain = psnr(x, found, data_range=span) - before
            figures.append(mean_figure(f"{name}/{label}/psnr_gain", gain, unit="dB", **protocol, **how))
            if window:
                gain = ssim(x, found, data_range=span) - similar
                options = {"window": window, **protocol, **how}
                figures.append(mean_figure(f"{name}/{label}/ssim_gain", gain, unit="", **options))
        return figures


def total_variation(x: Tensor, weight: float) -> Tensor:
    """Returns images x (N, C, H, W) with less total variation (Chambolle 2004), the less the larger `weight`."""
    from skimage.restoration import denoise_tv_chambolle

    images = x.cpu().double().numpy()
    return torch.from_numpy(
        np.stack([denoise_tv_chambolle(image, weight=weight, channel_axis=0) for image in images])
    ).to(x.dtype)


def median(x: Tensor, size: int) -> Tensor:
    """Returns the medians over size x size pixels of images x (N, C, H, W), reflected at their borders."""
    from scipy.ndimage import median_filter

    return torch.from_numpy(median_filter(x.cpu().numpy(), size=(1, 1, size, size)))
