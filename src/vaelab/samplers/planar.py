"""Planar flow posterior (Rezende & Mohamed 2015, "Variational inference with normalizing flows")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vaelab.checks import positive_int
from vaelab.distributions import Flow
from vaelab.samplers.flow import FlowSampler, diagonal

MIN_DETERMINANT = 1e-6  # float32 rounds -1 + softplus(x) to -1 from about x = -17
LOG_FACTOR = math.log(math.e - 1)
BISECTIONS = 60


class Planar:
    """f(z) = z + u tanh(w . z + b), with u moved along w so that w . u > -1 and f is invertible (appendix A.1).

    u' = u + (m(w . u) - w . u) w / |w|^2 with m(a) = -1 + log(1 + (e - 1) e^a). Deviation: the paper's m lacks the
    factor e - 1, by which m(0) = 0; without it even u = 0 is moved, by 0.3 / |w|, which has no bound as w goes to 0.

    Args:
        u: directions, (B, n).
        w: normals, (B, n).
        b: offsets, (B, 1).
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        dot = (w * u).sum(-1, keepdim=True)
        self.dot = (1 - MIN_DETERMINANT) * (softplus(dot + LOG_FACTOR) - 1)  # w . u'
        self.u = u + (self.dot - dot) * w / w.square().sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
        self.w, self.b = w, b

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x), (..., B, n), and log |1 + h'(w . x + b) w . u'|, (..., B)."""
        bend = ((self.w * x).sum(-1, keepdim=True) + self.b).tanh()
        return x + self.u * bend, torch.log1p((1 - bend.square()) * self.dot).squeeze(-1)

    @property
    def inv(self) -> PlanarInverse:
        """The inverse."""
        return PlanarInverse(self)


class PlanarInverse:
    """The inverse of a planar map, which has no closed form but one unknown: a = w . z.

    w . f(z) = a + (w . u') tanh(a + b) rises with a and is solved by bisection; a last Newton step from there gives the
    root its gradient (the implicit function theorem).

    Args:
        planar: what is inverted.
    """

    def __init__(self, planar: Planar) -> None:
        self.planar = planar

    @property
    def inv(self) -> Planar:
        """The planar map."""
        return self.planar

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f^-1(x), (..., B, n), and the log-determinant of the inverse, (..., B)."""
        u, w, b, dot = self.planar.u, self.planar.w, self.planar.b, self.planar.dot
        target = (w * x).sum(-1, keepdim=True)
        with torch.no_grad():
            low, high = target - dot.abs(), target + dot.abs()
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                above = middle + dot * (middle + b).tanh() > target
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            root = (low + high) / 2
        slope = 1 + dot * (1 - (root + b).tanh().square())
        root = root - (root + dot * (root + b).tanh() - target) / slope.detach()
        bend = (root + b).tanh()
        return x - u * bend, -torch.log1p((1 - bend.square()) * dot).squeeze(-1)


class PlanarFlowSampler(FlowSampler):
    """z = f_T o ... o f_1(z_0) with z_0 ~ N(mu(x), sigma(x)^2) and f_t(z) = z + u_t tanh(w_t . z + b_t).

    log q(z|x) = log N(z_0; mu, sigma^2) - sum_t log |1 + h'(w_t . z_(t-1) + b_t) u_t . w_t| with h = tanh (equations 10
    to 13). The network emits every u, w and b for every x. Draws and their density take one pass; the density of other
    points takes a bisection for every step.

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
