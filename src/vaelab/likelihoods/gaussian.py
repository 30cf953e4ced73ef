"""Gaussian likelihood: its standard deviation is fixed, learned, predicted or optimal."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Normal

from vaelab.checks import positive
from vaelab.likelihoods.location_scale import LocationScaleLikelihood


class GaussianLikelihood(LocationScaleLikelihood):
    """p(x|z) = prod_i N(x_i; mu_i(z), sigma_i^2), with mu from the decoder.

    `scale` says where sigma comes from: `fixed` (the argument), `learned` (one parameter that starts there),
    `learned_per_pixel` (a parameter for every value of an image), `predicted` (the decoder emits mu and log sigma for
    every value, P = 2: Kingma & Welling 2014, appendix C.2) or `optimal` (Rybkin, Daniilidis & Levine 2021, "Simple
    and effective VAE training with calibrated decoders", equation 9: sigma^2 = the mean squared error of the batch,
    while training). Deviation from the last paper: evaluation does not look at the data it scores but uses the running
    average of the training batches, so that the density is one.

    Args:
        scale: fixed, learned, learned_per_pixel, predicted or optimal.
        sigma: standard deviation if fixed, its start otherwise, in units of the data.
        x_shape: data shape (C, H, W), for learned_per_pixel.

    Raises:
        ValueError: for an unknown `scale`, a `sigma` that is not above 0 (0.001 if learned or predicted), or a missing
            `x_shape`.
    """

    family = Normal
    power = 2

    def __init__(self, *, scale: str = "optimal", sigma: float = 1.0, x_shape: Sequence[int] | None = None) -> None:
        super().__init__(scale=scale, start=positive("sigma", sigma), x_shape=x_shape)

    @property
    def sigma(self) -> Tensor:
        """The standard deviation that all images share in evaluation, () or (C, H, W)."""
        return self.shared_scale
