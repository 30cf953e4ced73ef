"""How well a score tells anomalies from normal data."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from vaelab.checks import positive_int


def auroc(normal: Tensor, anomalous: Tensor) -> tuple[float, float]:
    """Returns the area under the ROC curve of a score, and its standard error (DeLong, DeLong & Clarke-Pearson 1988).

    AUROC = P(s(anomaly) > s(normal)) + P(s(anomaly) = s(normal)) / 2, the Mann-Whitney statistic. With the placements
    V_i = P(s_i > s(normal)) of the anomalies and W_j = P(s(anomaly) > s_j) of the normal examples (ties by half), its
    variance is var(V) / M + var(W) / N. The error is 0 where the two sets do not overlap.

    Args:
        normal: scores (N,), any unit; larger is more anomalous.
        anomalous: scores (M,).

    Raises:
        ValueError: for fewer than two of either, or scores that are not finite.
    """
    from scipy.stats import rankdata

    x, y = _checked(normal, anomalous)
    both = rankdata(np.concatenate([x, y]))
    placements = (both[len(x) :] - rankdata(y)) / len(x)  # of the anomalies among the normal
    others = 1 - (both[: len(x)] - rankdata(x)) / len(y)
    error = math.sqrt(placements.var(ddof=1) / len(y) + others.var(ddof=1) / len(x))
    return float(placements.mean()), error


def average_precision(normal: Tensor, anomalous: Tensor, *, resamples: int = 20, seed: int = 0) -> tuple[float, float]:
    """Returns the average precision of a score, and its standard error by a bootstrap of both sets.

    AP = sum_n (R_n - R_{n-1}) P_n over the thresholds n, in which anomalies are what is to be found. A useless score
    has AP = M / (N + M), so that it compares only between sets with the same share of anomalies.

    Args:
        normal: scores (N,), any unit; larger is more anomalous.
        anomalous: scores (M,).
        resamples: number of bootstrap sets, at least 2, each with N and M draws with replacement.
        seed: of the bootstrap.

    Raises:
        ValueError: for fewer than two of either, scores that are not finite, or a `resamples` below 2.
    """
    from sklearn.metrics import average_precision_score

    if positive_int("resamples", resamples) < 2:
        raise ValueError(f"resamples must be at least 2, but is {resamples}")
    x, y = _checked(normal, anomalous)
    labels = np.repeat([0, 1], [len(x), len(y)])
    rng = np.random.default_rng(seed)
    values = [
        average_precision_score(labels, np.concatenate([rng.choice(x, len(x)), rng.choice(y, len(y))]))
        for _ in range(resamples)
    ]
    return float(average_precision_score(labels, np.concatenate([x, y]))), float(np.std(values, ddof=1))


def _checked(normal: Tensor, anomalous: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x, y = (scores.detach().cpu().double().flatten().numpy() for scores in (normal, anomalous))
    if min(len(x), len(y)) < 2:
        raise ValueError(
            f"at least 2 normal and 2 anomalous scores are needed, but there are {len(x)} and {len(y)}; take more"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite, but some are NaN or infinite; leave those images out or train anew")
    return x, y
