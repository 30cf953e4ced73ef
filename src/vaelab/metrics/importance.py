"""The k-sample bound on log p(x), streamed: constant memory whatever k."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vaelab.checks import positive_int
from vaelab.models import Model
from vaelab.numerics import reuse_memory

DRAWS = 5000  # latents of one image, or of several, that are drawn at once


@torch.no_grad()
def importance_bound(
    model: Model,
    x: Tensor,
    context: Tensor | None = None,
    *,
    k: int = 5000,
    rows: int | None = None,
    done: Callable[[int], object] | None = None,
) -> Tensor:
    """Returns log (1/k) sum_i p(x, z_i) / q(z_i|x) with k independent draws z_i ~ q(z|x), in nats, (B,).

    In expectation it is at most log p(x) and does not fall as k grows (Burda, Grosse & Salakhutdinov 2016, theorem 1).
    Exactly k draws are used. The weights are summed in float64, relative to their largest so far, so that memory does
    not depend on k.

    Args:
        model: in evaluation mode.
        x: images (B, C, H, W) in the data's own range, on the model's device.
        context: what a conditional model is given, (B, ...).
        k: number of draws for every image.
        rows: number of draws, of all images together, that are decoded at once: memory, and speed, which is best where
            they fit into a CPU's cache; None for as many as suit the device.
        done: called with the number of draws finished, for a progress bar.

    Raises:
        ValueError: for a number below 1, or a model without importance weights.
    """
    positive_int("k", k), positive_int("rows", 1 if rows is None else rows)
    reuse_memory()
    bounds = []
    size = images_at_once(k, rows)
    for i in range(0, len(x), size):
        part = x[i : i + size]
        given = None if context is None else context[i : i + size]
        largest = torch.full((len(part),), -math.inf, dtype=torch.float64, device="cpu")
        total = torch.zeros_like(largest)
        left = k
        while left:
            draws = min(left, max(1, max(DRAWS, rows or 0) // len(part)))
            log_weights = model.log_weights(part, given, num_samples=draws, rows=rows)  # (draws, B)
            top = log_weights.amax(0)
            sums = (log_weights - top).exp().sum(0)
            top, sums = top.cpu().double(), sums.cpu().double()
            highest = torch.maximum(largest, top)
            total = total * (largest - highest).exp() + sums * (top - highest).exp()
            largest = highest
            left -= draws
            if done is not None:
                done(draws * len(part))
        bounds.append(largest + total.log() - math.log(k))
    return torch.cat(bounds)


def images_at_once(k: int, rows: int | None = None) -> int:
    """Returns how many images `importance_bound` works on together."""
    return max(1, min(max(DRAWS, rows or 0) // k, rows or DRAWS))
