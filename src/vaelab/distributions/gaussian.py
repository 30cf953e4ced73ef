"""Diagonal Gaussians: made, multiplied and reshaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaelab.distributions.flow import Flow


def diagonal_gaussian(mean: Tensor, std: Tensor, event_dims: int) -> Independent:
    """Returns N(mean, diag std^2) with the last `event_dims` axes as event shape."""
    return Independent(Normal(mean, std, validate_args=False), event_dims, validate_args=False)


def product_of_gaussians(a: Independent, b: Independent) -> Independent:
    """Returns the Gaussian proportional to a(z) b(z): precisions add up, and means are averaged by precision.

    1 / sigma^2 = 1 / sigma_a^2 + 1 / sigma_b^2;  mu = sigma^2 (mu_a / sigma_a^2 + mu_b / sigma_b^2).

    Args:
        a: a diagonal Gaussian.
        b: another, of the same event shape; the batch shapes broadcast.
    """
    precision_a, precision_b = a.variance.reciprocal(), b.variance.reciprocal()
    variance = (precision_a + precision_b).reciprocal()
    mean = variance * (a.mean * precision_a + b.mean * precision_b)
    return diagonal_gaussian(mean, variance.sqrt(), len(a.event_shape))


def log_prob_of_each(components: Independent, z: Tensor) -> Tensor:
    """Returns log N(z; mu_c, diag sigma_c^2) in nats, (..., C), of C diagonal Gaussians for z (..., *event).

    sum_d [ -z_d^2 / (2 sigma_cd^2) + z_d mu_cd / sigma_cd^2 ] + const_c is two matrix products, in the place of a
    difference for every z, c and d. They are taken in float64, because the terms nearly cancel where sigma is small.

    Args:
        components: Gaussians of batch shape (C,).
        z: points.
    """
    mean, std = components.mean.double().flatten(1), components.stddev.double().flatten(1)  # (C, D)
    points = z.double().flatten(z.ndim - len(components.event_shape))  # (..., D)
    precision = std.square().reciprocal()
    constants = (mean.square() * precision / 2 + std.log() + math.log(2 * math.pi) / 2).sum(1)
    log_probs = points @ (mean * precision).T - points.square() @ (precision / 2).T - constants
    return log_probs.to(torch.promote_types(components.mean.dtype, z.dtype))


def unflatten_batch(q: Distribution, shape: Sequence[int]) -> Distribution:
    """Returns q, a diagonal Gaussian or a flow of one whose maps are the same for all, with its first axis split."""
    if isinstance(q, Flow):
        return Flow(unflatten_batch(q.base, shape), q.bijections, q.event_shape)
    return diagonal_gaussian(q.mean.unflatten(0, shape), q.stddev.unflatten(0, shape), len(q.event_shape))
