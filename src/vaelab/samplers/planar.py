"""Planar flow posterior (Rezende & Mohamed 2015, "Variational inference with normalizing flows")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vaelab.checks import positive_int
from vaelab.distributions import Bijection, Flow
from vaelab.samplers.flow import FlowSampler, diagonal

MIN_DETERMINANT = 1e-6  # float32 rounds -1 + softplus(x) to -1 from about x = -17


class Planar:
    """f(z) = z + u tanh(w . z + b), with u moved so that w . u > -1 and f is invertible (appendix A.1).

    u' = u + (m(w . u) - w . u) w / |w|^2 with m(a) = -1 + log(1 + e^a).

    Args:
        u: directions, (B, n).
        w: normals, (B, n).
        b: offsets, (B, 1).
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        dot = (w * u).sum(-1)
        self.dot = softplus(dot) - 1 + MIN_DETERMINANT  # w . u'
        length = w.square().sum(-1).clamp(min=torch.finfo(w.dtype).tiny)
        self.u = u + ((self.dot - dot) / length).unsqueeze(-1) * w
        self.w, self.b = w, b

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x), (..., B, n), and log |1 + h'(w . x + b) w . u'|, (..., B)."""
        bend = ((self.w * x).sum(-1, keepdim=True) + self.b).tanh()
        return x + self.u * bend, torch.log1p((1 - bend.squeeze(-1).square()) * self.dot)

    @property
    def inv(self) -> Bijection:
        """Raises a NotImplementedError: there is no closed inverse."""
        raise NotImplementedError(
            "a planar flow has no closed inverse: it knows log q(z|x) of its own last draws alone; choose "
            "model/sampler=iaf or model/sampler=coupling for densities of other points"
        )


class PlanarFlowSampler(FlowSampler):
    """z = f_T o ... o f_1(z_0) with z_0 ~ N(mu(x), sigma(x)^2) and f_t(z) = z + u_t tanh(w_t . z + b_t).

    log q(z|x) = log N(z_0; mu, sigma^2) - sum_t log |1 + h'(w_t . z_(t-1) + b_t) u_t . w_t| with h = tanh (equations 10
    to 13). The network emits every u, w and b for every x. There is no closed inverse, so that log q(z|x) is known for
    the last draws alone.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w), the latter transformed as one vector.
        steps: T.

    Raises:
        ValueError: for `steps` below 1, or a latent map that the features cannot give.
    """

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int], steps: int = 10) -> None:
        planes = positive_int("steps", steps) * (2 * math.prod(latent_shape) + 1)
        super().__init__(in_shape=in_shape, latent_shape=latent_shape, context=planes)
        self.steps = steps

    def forward(self, features: Tensor) -> Flow:
        """Maps features (B, *in_shape) to a flow of batch shape (B,) and event shape `latent_shape`."""
        planes = self.context_of(features).chunk(self.steps, -1)  # (B, 2 n + 1) each
        steps = [Planar(*plane.split(self.size, -1)) for plane in planes]
        return Flow(diagonal(*self.noise(features)), steps, self.latent_shape)
