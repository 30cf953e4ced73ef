"""How much of an image the latents keep: fidelity, and the bits that keeping it exactly would take."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vaelab.checks import positive_int
from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.evaluation.images import given, levels, reconstructed, save_rows, told, value_range
from vaelab.metrics.compression import png_bits, raw_bits, zlib_bits, zlib_bits_together
from vaelab.metrics.reconstruction import psnr, squared_error, ssim, ssim_window

COLUMNS = 12
BITS = ("bits", "of_raw", "of_png", "of_zlib")


class Reconstruction(Evaluation):
    """MSE, PSNR and SSIM of E[x|z] at the posterior mean; rate, distortion and code length beside PNG and zlib.

    -ELBO / log 2 is the expected length in bits of an image's code by bits-back coding (Hinton & van Camp 1993;
    Townsend et al. 2019) where the likelihood is a probability of such data; of a conditional model, for a receiver who
    knows the label. Rate KL(q(z|x) || p(z)) and distortion -E_q[log p(x|z)] are its two parts (Alemi et al. 2018).

    Args:
        draws: of z for every image in rate and distortion.
        images: how many at the most; None for all.

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(self, *, draws: int = 10, images: int | None = None) -> None:
        self.draws = positive_int("draws", draws)
        self.images = None if images is None else positive_int("images", images)

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `reconstruction/...` and `compression/...`, and saves `reconstruction.png`."""
        x, y = subject.images(self.images)
        return [*self._fidelity(subject, x, y), self._at_mean(subject, x, y), *self._code_length(subject, x, y)]

    def _fidelity(self, subject: Subject, x: Tensor, y: Tensor) -> list[Figure]:
        found = reconstructed(subject, x, y, "reconstruction")
        shown = value_range(subject)
        span = shown[1] - shown[0]
        save_rows(
            subject.folder / "reconstruction.png", [("images", x[:COLUMNS]), ("reconstructed", found[:COLUMNS])], shown
        )
        protocol = {"z": "posterior mean", "range": span, **given(subject.model)}
        figures = [
            mean_figure("reconstruction/mse", squared_error(x, found), unit="", **protocol),
            mean_figure("reconstruction/psnr", psnr(x, found, data_range=span), unit="dB", **protocol),
        ]
        try:
            window = ssim_window(*x.shape[2:])
        except ValueError as error:
            return [*figures, no_figure("reconstruction/ssim", str(error))]
        values = ssim(x, found, data_range=span)
        return [*figures, mean_figure("reconstruction/ssim", values, unit="", window=window, **protocol)]

    def _at_mean(self, subject: Subject, x: Tensor, y: Tensor) -> Figure:
        """Returns log p(x|z) at the posterior mean."""
        name, model = "reconstruction/log_px_at_mean", subject.model
        if len(model(x[:1].to(model.device, model.dtype), y[:1].to(model.device)).latents) > 1:
            return no_figure(
                name,
                "there are several latent groups, and no p(x|z) at the mean of one alone; see compression/distortion",
            )
        values = [
            model.p_x(model.encode(part, labels).mean, labels).log_prob(part).cpu()
            for part, labels in subject.batches(x, y, 500, "log p(x|z)")
        ]
        return mean_figure(name, torch.cat(values), z="posterior mean", **given(model))

    def _code_length(self, subject: Subject, x: Tensor, y: Tensor) -> list[Figure]:
        """Returns the rate-distortion point, the code length in bits and what ordinary programs need."""
        model = subject.model
        terms = [
            (t.kl.mean(0).cpu(), -t.log_px.mean(0).cpu(), t.is_bound)
            for part, labels in subject.batches(x, told(model, y), max(1, 2000 // self.draws), "rate and distortion")
            for t in (model(part, labels, num_samples=self.draws),)
        ]
        rate, distortion = (torch.cat([t[i] for t in terms]).double() for i in (0, 1))
        protocol = {"draws": self.draws, **given(model)}
        figures = [mean_figure("compression/distortion", distortion, **protocol)]
        if not terms[0][2]:
            why = "a deterministic code has no density, so that there is no rate"
            return [
                *figures,
                *(no_figure(f"compression/{name}", why) for name in ("rate", *BITS)),
                *self._others(subject, x),
            ]
        figures.append(mean_figure("compression/rate", rate, **protocol))
        if subject.support not in model.likelihood.probability_of:
            why = f"{type(model.likelihood).__name__} gives {subject.support} data no probability, so that -ELBO is no "
            why += "code length"
            return [*figures, *(no_figure(f"compression/{name}", why) for name in BITS), *self._others(subject, x)]
        bits = (rate + distortion) / math.log(2)
        figures.append(mean_figure("compression/bits", bits, unit="bits", **protocol))
        grey = levels(subject)
        if grey is None or grey > 256:
            none = (no_figure(f"compression/{name}", _NO_LEVELS) for name in BITS[1:])
            return [*figures, *none, *self._others(subject, x)]
        figures.append(mean_figure("compression/of_raw", bits / raw_bits(model.x_shape, grey), unit="", **protocol))
        figures.append(ratio_figure("compression/of_png", bits, png_bits(x, levels=grey), **protocol))
        figures.append(ratio_figure("compression/of_zlib", bits, zlib_bits(x, levels=grey), **protocol))
        return [*figures, *self._others(subject, x)]

    def _others(self, subject: Subject, x: Tensor) -> list[Figure]:
        """Returns the bits per image without compression, of PNG and of zlib."""
        grey = levels(subject)
        if grey is None or grey > 256:
            return [no_figure(f"compression/{name}", _NO_LEVELS) for name in ("raw", "png", "zlib", "zlib_together")]
        raw = raw_bits(subject.model.x_shape, grey)
        together = zlib_bits_together(x, levels=grey)
        return [
            Figure("compression/raw", raw, None, "bits", {"levels": grey}),
            mean_figure("compression/png", png_bits(x, levels=grey), unit="bits", levels=grey, file="each image"),
            mean_figure("compression/zlib", zlib_bits(x, levels=grey), unit="bits", levels=grey, stream="each image"),
            Figure("compression/zlib_together", together, None, "bits", {"images": len(x), "stream": "all images"}),
        ]


_NO_LEVELS = "floating-point values have no grey levels that PNG or zlib could store"


def ratio_figure(name: str, above: Tensor, below: Tensor, **protocol: Any) -> Figure:
    """Returns mean(above) / mean(below) of two numbers for each of N images, with its standard error (delta method)."""
    above, below = above.double(), below.double()
    ratio = above.mean() / below.mean()
    error = (above - ratio * below).std() / (below.mean() * math.sqrt(len(above))) if len(above) > 1 else None
    return Figure(name, float(ratio), None if error is None else float(error), "", {"images": len(above), **protocol})
