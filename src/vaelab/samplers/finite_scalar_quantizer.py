"""Finite scalar quantisation (Mentzer, Minnen, Agustsson & Tschannen 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaelab.checks import positive_ints
from vaelab.distributions.precision import full_precision
from vaelab.numerics import at_least_float32
from vaelab.samplers.codes import CodeSampler, Quantized, usage

EPSILON = 1e-3  # as in the code of the paper


class FiniteScalarQuantizer(CodeSampler):
    """z_i = round(f(z_e,i)) / floor(L_i / 2): every channel i is rounded to one of L_i levels in [-1, 1].

    (Mentzer et al. 2024, "Finite scalar quantization: VQ-VAE made simple", section 3.1.) The bound is

        f(z) = h tanh(z + s) - o,   h = (1 - epsilon) (L - 1) / 2,   s = atanh(o / h),

    with o = 0 for odd L, and 1/2 for even L, where there is one more level below 0 than above; f(0) = 0. (Deviation:
    the paper's code has tan in the place of atanh.) The gradient of the rounding is 1. d channels make one code of
    K = prod_i L_i values. Nothing about the codebook is learned, and there is no penalty.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w) with D a multiple of d, the number of `levels`.
        levels: L_1 ... L_d, each at least 3; the paper advises at least 5.

    Raises:
        ValueError: if d does not divide D, for fewer than 3 levels, or a latent map that the features cannot give.
    """

    levels: Tensor
    strides: Tensor

    def __init__(
        self, *, in_shape: Sequence[int], latent_shape: Sequence[int], levels: Sequence[int] = (8, 5, 5, 5)
    ) -> None:
        counts = positive_ints("levels", levels)
        if not counts or min(counts) < 3:
            raise ValueError(
                f"levels must be at least 3 for every channel, but are {counts}; choose model/sampler=bernoulli for two"
            )
        if latent_shape[0] % len(counts):
            raise ValueError(
                f"levels must be as many as divide latent_dim={latent_shape[0]}, but are {counts}; choose "
                f"model.latent_dim={len(counts)} for one code at every position"
            )
        super().__init__(
            in_shape=in_shape, latent_shape=latent_shape, num_codes=math.prod(counts), code_dim=len(counts)
        )
        strides = [math.prod(counts[:i]) for i in range(len(counts))]
        self.register_buffer("levels", torch.tensor(counts), persistent=False)
        self.register_buffer("strides", torch.tensor(strides), persistent=False)

    def forward(self, features: Tensor) -> Quantized:
        """Maps features (B, *in_shape) to codes of batch shape (B,) and event shape `latent_shape`."""
        z_e = self.split(at_least_float32(self.projection(features)))  # (B, G, h, w, d)
        with full_precision(z_e):
            bounded = self.bound(z_e)
            steps = bounded.detach().round()
        codes = self._number(steps)
        straight_through = steps + (bounded - bounded.detach())  # exactly the steps: the bracket is 0
        return Quantized(
            self.join(straight_through / self.half_width),
            codes,
            len(self.latent_shape),
            metrics=usage(codes.view(1, -1), self.num_codes),
        )

    @property
    def half_width(self) -> Tensor:
        """floor(L / 2), (d,)."""
        return self.levels // 2

    def bound(self, z: Tensor) -> Tensor:
        """Returns f(z), (..., d), which rounds to the whole numbers from -floor(L / 2) up, L of them."""
        half = (1 - EPSILON) * (self.levels.to(z.dtype) - 1) / 2
        offset = torch.where(self.levels % 2 == 1, 0.0, 0.5).to(z.dtype)
        return half * (z + (offset / half).atanh()).tanh() - offset

    def codes(self, z: Tensor) -> Tensor:
        """Returns the codes (..., Q, h, w) of the levels nearest to z (..., *latent_shape)."""
        return self._number((self.split(at_least_float32(z)) * self.half_width).round())

    def embed(self, codes: Tensor) -> Tensor:
        """Returns the z (..., *latent_shape) of codes (..., Q, h, w)."""
        digits = codes.unsqueeze(-1) // self.strides % self.levels
        return self.join((digits - self.half_width) / self.half_width)

    def _number(self, steps: Tensor) -> Tensor:
        digits = (steps.long() + self.half_width).clamp(min=0).minimum(self.levels - 1)
        return (digits * self.strides).sum(-1)
