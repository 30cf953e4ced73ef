"""Distributions of unit vectors: von Mises-Fisher and uniform.

Functions of a concentration alone (one number per example) are computed in float64 on the CPU, where scipy has the
Bessel functions, and brought back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import gammaln, ive
from scipy.special import logsumexp as np_logsumexp
from torch import Tensor
from torch.distributions import Beta, Distribution, constraints, register_kl
from torch.nn.functional import normalize

QUADRATURE_NODES = 128
SERIES_TERMS = 64  # enough wherever I_v underflows, up to some thousand dimensions


class _LogScaledBessel(torch.autograd.Function):
    """log(exp(-x) I_v(x)) for x > 0 on the CPU, with I_v' = I_(v+1) + (v / x) I_v (DLMF 10.29.2)."""

    @staticmethod
    def forward(ctx: Any, order: float, x: Tensor) -> Tensor:
        ctx.order = order
        ctx.save_for_backward(x)
        return torch.as_tensor(log_scaled_bessel(order, x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        return None, grads[0] * (bessel_ratio(ctx.order, x) + ctx.order / x - 1)


def log_scaled_bessel(order: float, x: np.ndarray) -> np.ndarray:
    """Returns log(exp(-x) I_v(x)) for v = `order` >= 0 and x > 0, by the power series where I_v underflows."""
    scaled = ive(order, x)
    k = np.arange(SERIES_TERMS)
    terms = 2 * np.log(x / 2)[..., None] * k - gammaln(k + 1) - gammaln(order + k + 1)  # DLMF 10.25.2
    series = order * np.log(x / 2) + np_logsumexp(terms, axis=-1) - x
    underflows = scaled < 1e-290
    return np.where(underflows, series, np.log(np.where(underflows, 1.0, scaled)))


def bessel_ratio(order: float, x: Tensor) -> Tensor:
    """Returns I_(v+1)(x) / I_v(x) for x > 0 on the CPU, differentiably."""
    return (_LogScaledBessel.apply(order + 1, x) - _LogScaledBessel.apply(order, x)).exp()


def log_sphere_area(dim: int) -> float:
    """Returns log(2 pi^(m/2) / Gamma(m/2)), the log area of the unit sphere in m = `dim` dimensions."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


class _ImplicitAngle(torch.autograd.Function):
    """The drawn angle theta itself, with d theta / d kappa = -(d/dkappa) F(theta; kappa) / p(theta; kappa).

    For p(theta) ~ exp(kappa cos theta) sin^(m-2) theta this is the integral of (A - cos phi) p(phi) / p(theta) over
    0 < phi < theta, a smooth function for Gauss-Legendre quadrature.
    """

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, angle: Tensor, resultant: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(concentration, angle, resultant)
        ctx.dim = dim
        return angle.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        kappa, theta, resultant = (t.cpu().double().unsqueeze(-1) for t in ctx.saved_tensors)
        nodes, weights = gauss_legendre()
        phi = theta * nodes
        log_ratio = kappa * (phi.cos() - theta.cos()) + (ctx.dim - 2) * (phi.sin() / theta.sin()).log()
        slope = theta.squeeze(-1) * ((resultant - phi.cos()) * log_ratio.exp() @ weights)
        return grads[0] * slope.to(grads[0]), None, None, None


@cache
def gauss_legendre() -> tuple[Tensor, Tensor]:
    """Returns the nodes and the weights of Gauss-Legendre quadrature on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


class VonMisesFisher(Distribution):
    """p(z) = C_m(kappa) exp(kappa mu . z) on the unit sphere in m dimensions (Davidson et al. 2018, section 3.1).

    C_m(kappa) = kappa^(m/2-1) / ((2 pi)^(m/2) I_(m/2-1)(kappa)), a density by area.

    Draws are z = cos(theta) mu + sin(theta) v with v uniform on the unit vectors orthogonal to mu and theta from the
    rejection sampler of Ulrich (1984) and Wood (1994; Davidson et al. 2018, algorithm 1). Deviations: v is the
    normalised projection of Gaussian noise, which needs no Householder reflection; and theta has its exact derivative
    by kappa (Figurnov, Mohamed & Mnih 2018, "Implicit reparameterization gradients"). Differentiating the accepted
    proposal instead leaves out that kappa also changes what is accepted: for m = 2 and kappa = 1 the derivative of
    E[mu . z] is 0.35, but that shortcut gives 0.20.

    Args:
        mean_direction: unit vectors mu, (..., m) with m >= 2.
        concentration: kappa > 0, (...).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, mean_direction: Tensor, concentration: Tensor) -> None:
        self.mean_direction = mean_direction
        self.concentration = concentration
        super().__init__(concentration.shape, mean_direction.shape[-1:], validate_args=False)

    @property
    def dim(self) -> int:
        """Number of dimensions m of the space around the sphere."""
        return self.event_shape[0]

    @property
    def mean(self) -> Tensor:
        """The mean direction mu, (B, m): the point estimate on the sphere; E[z] = A_m(kappa) mu lies inside it."""
        return self.mean_direction

    @property
    def resultant_length(self) -> Tensor:
        """A_m(kappa) = I_(m/2)(kappa) / I_(m/2-1)(kappa), the length of E[z], (B,)."""
        return bessel_ratio(self.dim / 2 - 1, self._kappa).to(self.concentration)

    @property
    def variance(self) -> Tensor:
        """Variance of every coordinate, (B, m): A/kappa + mu_i^2 (1 - m A/kappa - A^2)."""
        length = self.resultant_length.unsqueeze(-1)
        spread = length / self.concentration.unsqueeze(-1)
        return spread + self.mean_direction.square() * (1 - self.dim * spread - length.square())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, m) by reparameterisation."""
        shape = torch.Size(sample_shape) + self.batch_shape
        kappa, resultant = self.concentration.expand(shape), self.resultant_length.detach().expand(shape)
        angle = _ImplicitAngle.apply(kappa, draw_angle(kappa.detach(), self.dim), resultant, self.dim).unsqueeze(-1)
        mu = self.mean_direction.expand(shape + self.event_shape)
        tangent = torch.randn_like(mu)
        for _ in range(2):  # the second time takes away what rounding left of mu
            tangent = normalize(tangent - (tangent * mu).sum(-1, keepdim=True) * mu, dim=-1)
        return angle.cos() * mu + angle.sin() * tangent

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (..., B), for unit vectors z (..., B, m)."""
        cosine = (self.mean_direction * value).sum(-1)
        return self.concentration * (cosine - 1) + self._log_peak.to(self.concentration)

    def entropy(self) -> Tensor:
        """Returns the entropy in nats, (B,)."""
        length = bessel_ratio(self.dim / 2 - 1, self._kappa)
        return (self._kappa * (1 - length) - self._log_peak).to(self.concentration)

    @property
    def _kappa(self) -> Tensor:
        return self.concentration.cpu().double()

    @property
    def _log_peak(self) -> Tensor:
        """log p(mu) = log C_m(kappa) + kappa, in float64 on the CPU."""
        order = self.dim / 2 - 1
        bessel = _LogScaledBessel.apply(order, self._kappa)
        return order * self._kappa.log() - self.dim / 2 * math.log(2 * math.pi) - bessel


def draw_angle(kappa: Tensor, dim: int) -> Tensor:
    """Draws the angle between z and mu by rejection, shaped like kappa.

    The proposal is tan^2(theta / 2) = b e / (1 - e) with e ~ Beta((m-1)/2, (m-1)/2): the w = cos(theta) of Ulrich and
    Wood, without the cancellation in 1 - w^2.
    """
    shape, kappa, n = kappa.shape, kappa.flatten(), dim - 1
    root = (4 * kappa.square() + n**2).sqrt()
    a = (n + 2 * kappa + root) / 4
    b = n / (2 * kappa + root)
    d = 4 * a * b / (1 + b) - n * math.log(n)
    half = kappa.new_tensor(n / 2)
    proposal = Beta(half, half, validate_args=False)
    angle = torch.empty_like(kappa)
    waiting = torch.arange(len(kappa), device=kappa.device)
    finfo = torch.finfo(kappa.dtype)
    while len(waiting):
        e = proposal.sample(waiting.shape).clamp(finfo.tiny, 1 - finfo.eps)
        t = 2 * (a * b)[waiting] / (1 - (1 - b[waiting]) * e)
        accepted = n * t.log() - t + d[waiting] >= torch.rand_like(e).log()
        angle[waiting] = torch.where(accepted, 2 * (b[waiting] * e / (1 - e)).sqrt().atan(), 0.0)
        waiting = waiting[~accepted]
    return angle.view(shape)


class UniformSphere(Distribution):
    """p(z) = Gamma(m/2) / (2 pi^(m/2)), uniform by area on the unit sphere in m dimensions.

    Args:
        center: zeros, (..., m) with m >= 2; it lends its shape, type and device.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, center: Tensor) -> None:
        self.center = center
        super().__init__(center.shape[:-1], center.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Zeros, (B, m)."""
        return self.center

    @property
    def variance(self) -> Tensor:
        """1 / m for every coordinate, (B, m)."""
        return torch.full_like(self.center, 1 / self.event_shape[0])

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, m)."""
        return normalize(torch.randn_like(self.center.expand(*sample_shape, *self.center.shape)), dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (..., B), for unit vectors z (..., B, m)."""
        return -self.entropy().to(value).expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

    def entropy(self) -> Tensor:
        """Returns the log area in nats, (B,)."""
        return self.center.new_full(self.batch_shape, log_sphere_area(self.event_shape[0]))


@register_kl(VonMisesFisher, UniformSphere)
def _kl_von_mises_fisher_uniform(q: VonMisesFisher, p: UniformSphere) -> Tensor:
    # kappa A_m(kappa) + log C_m(kappa) + log area (Davidson et al. 2018, section 3.2), summed in float64.
    length = bessel_ratio(q.dim / 2 - 1, q._kappa)
    kl = q._kappa * (length - 1) + q._log_peak + log_sphere_area(q.dim)
    return kl.to(q.concentration).expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))
