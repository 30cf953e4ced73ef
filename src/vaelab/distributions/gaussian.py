"""Diagonal Gaussians: made, multiplied and reshaped."""

from __future__ import annotations

from collections.abc import Sequence

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


def unflatten_batch(q: Distribution, shape: Sequence[int]) -> Distribution:
    """Returns q, a diagonal Gaussian or a flow of one whose maps are the same for all, with its first axis split."""
    if isinstance(q, Flow):
        return Flow(unflatten_batch(q.base, shape), q.bijections, q.event_shape)
    return diagonal_gaussian(q.mean.unflatten(0, shape), q.stddev.unflatten(0, shape), len(q.event_shape))
