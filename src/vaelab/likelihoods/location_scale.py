"""What the Gaussian and the Laplace likelihood share: a location for every value, a scale from one of five sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, Normal

from vaelab.checks import image_shape, one_of
from vaelab.likelihoods.base import Likelihood, scale_from
from vaelab.numerics import at_least_float32

SCALES = ("fixed", "learned", "learned_per_pixel", "predicted", "optimal")
MIN_SCALE = 1e-3  # of every scale that is not fixed
SLOWEST_RATE = 0.01  # the running moment averages over about the last 100 batches


class LocationScaleLikelihood(Likelihood):
    """p(x|z) = prod_i f((x_i - mu_i(z)) / s_i) / s_i, with mu from the decoder.

    The scale s comes from one of five sources. `fixed`: the argument; `learned`: one parameter; `learned_per_pixel`: a
    parameter for every value of an image; `predicted`: the decoder emits log s for every value (P = 2: location, log
    scale); `optimal`: s^p = the mean of |x - mu|^p over all values of the training batch, where the log-density is
    greatest.

    Args:
        scale: the source.
        start: the fixed scale, or where the others start, in units of the data; a predicted scale equals it where the
            decoder emits 0.
        x_shape: data shape (C, H, W), for `learned_per_pixel`.

    Raises:
        ValueError: for an unknown `scale`, a learned or predicted one that starts too small, or a missing `x_shape`.
    """

    family: ClassVar[type[Normal] | type[Laplace]]
    power: ClassVar[int]  # p
    supports = ("binary", "levels", "unit", "real")
    remedy = ""
    fixed_scale: Tensor
    log_scale: Tensor
    running_moment: Tensor
    batches: Tensor

    def __init__(self, *, scale: str, start: float, x_shape: Sequence[int] | None) -> None:
        super().__init__()
        self.scale = one_of("scale", scale, SCALES)
        start = float(start)  # YAML writes 1 for 1.0
        if scale not in ("fixed", "optimal") and start <= MIN_SCALE:
            raise ValueError(f"a {scale} scale must start above {MIN_SCALE}, but starts at {start}; or use scale=fixed")
        if scale == "fixed":
            self.register_buffer("fixed_scale", torch.tensor(start))
        elif scale == "learned":
            self.log_scale = nn.Parameter(torch.tensor(math.log(start)))
        elif scale == "learned_per_pixel":
            if x_shape is None:
                raise ValueError("x_shape must be given for scale=learned_per_pixel: (channels, height, width)")
            self.log_scale = nn.Parameter(torch.full(image_shape("x_shape", x_shape), math.log(start)))
        elif scale == "predicted":
            self.params_per_channel = 2
            self.log_start = math.log(start)
        else:
            self.register_buffer("running_moment", torch.tensor(start**self.power))
            self.register_buffer("batches", torch.tensor(0.0))

    @property
    def shared_scale(self) -> Tensor:
        """The scale that all images share in evaluation, () or (C, H, W); a predicted scale is each image's own."""
        if self.scale == "fixed":
            return self.fixed_scale
        if self.scale == "optimal":
            return self._root(self.running_moment)
        return scale_from(self.log_scale, floor=MIN_SCALE)

    def forward(self, params: Tensor) -> Independent:
        """Maps locations (B, C, H, W), or locations and log scales (B, 2 * C, H, W), to p(x|z)."""
        if self.scale == "predicted":
            location, log_scale = self.split(params)
            return self._independent(location, scale_from(log_scale + self.log_start, floor=MIN_SCALE))
        location = at_least_float32(params)
        return self._independent(location, self.shared_scale.to(location))

    def log_prob(self, params: Tensor, x: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (K, B), for parameters (K, B, P * C, H, W) and data (B, C, H, W)."""
        if not (self.scale == "optimal" and self.training):
            return super().log_prob(params, x)
        location = at_least_float32(params)
        # The mean log-density is at its optimum by the scale, where that derivative vanishes: detaching it changes no
        # gradient.
        moment = (x - location).abs().pow(self.power).mean().detach()
        with torch.no_grad():
            self.batches += 1
            rate = (1 / self.batches).clamp(min=SLOWEST_RATE)
            self.running_moment += rate * (moment - self.running_moment)
        return self._independent(location, self._root(moment)).log_prob(x)

    def _root(self, moment: Tensor) -> Tensor:
        return moment.pow(1 / self.power).clamp(min=MIN_SCALE)

    def _independent(self, location: Tensor, scale: Tensor) -> Independent:
        return Independent(self.family(location, scale, validate_args=False), 3, validate_args=False)
