"""What the latents hold, in how many dimensions, and how the aggregate posterior fits the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

VALUES = 2**22  # densities held at once


@dataclass(frozen=True)
class AggregateParts:
    """The KL to the prior, taken apart; every part is a value of each draw in nats, (N,), and its mean the estimate.

    Attributes:
        mutual_information: log q(z|x) - log q(z).
        marginal_kl: log q(z) - log p(z).
        total_correlation: log q(z) - sum_j log q(z_j); None if q(z|x) does not factorise over dimensions.
        dimension_wise_kl: sum_j log q(z_j) - log p(z); None likewise.
    """

    mutual_information: Tensor
    marginal_kl: Tensor
    total_correlation: Tensor | None
    dimension_wise_kl: Tensor | None


def mean_covariance(first: Tensor, second: Tensor) -> Tensor:
    """Returns Cov_x(m, m') of every dimension, (D,), with the unbiased 1 / (N - 1), for m and m' of N images, (N, D).

    Where the posterior mean is exact, m = m' = E_q[z_j|x], it is its variance over the images: the activity of a unit
    (Burda, Grosse & Salakhutdinov 2016, section 5.2). Of a latent group whose posterior depends on draws of another,
    m and m' are the means for two independent draws, and the covariance is free of the variance of those draws.

    Raises:
        ValueError: for fewer than two images, two sets of another shape, or means that are not finite.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(
            "the activity of units needs posterior means (N, D) of at least two images, twice, but they are "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    if not (first.isfinite().all() and second.isfinite().all()):
        raise ValueError("posterior means must be finite, but some are NaN or infinite; train anew")
    first, second = first.double(), second.double()
    return ((first - first.mean(0)) * (second - second.mean(0))).sum(0) / (len(first) - 1)


def active_units(activity: Tensor, *, threshold: float = 0.01) -> int:
    """Returns how many units have an activity (D,) above the threshold (Burda et al. 2016: 0.01)."""
    return int((activity > threshold).sum())


@torch.no_grad()
def aggregate_parts(
    z: Tensor, log_q: Tensor, log_p: Tensor, posteriors: Sequence[Distribution], *, values: int = VALUES
) -> AggregateParts:
    """Takes the KL to the prior apart by the aggregate posterior q(z) = (1/N) sum_n q(z|x_n) of the same N images.

    E_x KL(q(z|x) || p(z)) = I_q(x; z) + KL(q(z) || p(z))                 (Hoffman & Johnson 2016, equation 7)
                           = I_q(x; z) + TC + sum_j KL(q(z_j) || p(z_j))  (Chen et al. 2018, equation 2)

    The second line holds for a prior that factorises. For every draw the parts add up to log q(z|x) - log p(z) exactly.
    I_q(x; z) is that of an image chosen among the N, and cannot exceed log N nats.

    Args:
        z: a draw z_n ~ q(z|x_n) of every image, (N, *latent_shape).
        log_q: log q(z_n|x_n), (N,).
        log_p: log p(z_n), (N,).
        posteriors: q(z|x_n), in batches (B,) whose sizes add up to N.
        values: how many densities are held at once: memory, not figures.

    Raises:
        ValueError: if the sizes differ, or there are fewer than two images.
        NotImplementedError: if a posterior has no density of other draws than its own.
    """
    total = sum(q.batch_shape.numel() for q in posteriors)
    if not len(z) == len(log_q) == len(log_p) == total or total < 2:
        raise ValueError(
            "the aggregate posterior needs a draw, two log-probabilities and a posterior of each of at least two "
            f"images, but there are {len(z)}, {len(log_q)}, {len(log_p)} and {total}"
        )
    factorises = all(isinstance(q, Independent) for q in posteriors)
    joint, product = [], []
    largest = max(q.batch_shape.numel() for q in posteriors)
    for part in z.split(max(1, values // (largest * z[0].numel()))):
        log_joint = torch.full((len(part),), -math.inf, dtype=torch.float64, device=z.device)
        log_each = torch.full((), -math.inf, dtype=torch.float64, device=z.device)
        for q in posteriors:
            if factorises:
                each = _factors(q).log_prob(part.unsqueeze(1)).flatten(2)  # (M, B, D)
                log_all = each.sum(2)
                log_each = torch.logaddexp(log_each, each.logsumexp(1).double())
            else:
                log_all = q.log_prob(part.unsqueeze(1))
            log_joint = torch.logaddexp(log_joint, log_all.logsumexp(1).double())
        joint.append(log_joint - math.log(total))
        product.append((log_each - math.log(total)).sum(-1))
    log_qz, log_qz_product = torch.cat(joint), torch.cat(product) if factorises else None
    log_q, log_p = log_q.double(), log_p.double()
    return AggregateParts(
        mutual_information=log_q - log_qz,
        marginal_kl=log_qz - log_p,
        total_correlation=None if log_qz_product is None else log_qz - log_qz_product,
        dimension_wise_kl=None if log_qz_product is None else log_qz_product - log_p,
    )


def _factors(q: Distribution) -> Distribution:
    assert isinstance(q, Independent)
    return q.base_dist
