"""Laplace likelihood: the absolute error with its constants; its scale is fixed, learned, predicted or optimal."""

from __future__ import annotations

from collections.abc import Sequence

from torch.distributions import Laplace

from vaelab.checks import positive
from vaelab.likelihoods.location_scale import LocationScaleLikelihood


class LaplaceLikelihood(LocationScaleLikelihood):
    """p(x|z) = prod_i exp(-|x_i - mu_i(z)| / b_i) / (2 b_i), with mu from the decoder.

    `scale` says where b comes from, as in the Gaussian likelihood; `optimal` carries Rybkin, Daniilidis & Levine 2021
    over to this density: b = the mean absolute error of the training batch, and its running average in evaluation.

    Args:
        scale: fixed, learned, learned_per_pixel, predicted or optimal.
        b: scale if fixed, its start otherwise, in units of the data; the standard deviation is sqrt(2) b.
        x_shape: data shape (C, H, W), for learned_per_pixel.

    Raises:
        ValueError: for an unknown `scale`, a `b` that is not above 0 (0.001 if learned or predicted), or a missing
            `x_shape`.
    """

    family = Laplace
    power = 1

    def __init__(self, *, scale: str = "optimal", b: float = 1.0, x_shape: Sequence[int] | None = None) -> None:
        super().__init__(scale=scale, start=positive("b", b), x_shape=x_shape)
