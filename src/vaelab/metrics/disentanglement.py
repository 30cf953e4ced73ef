"""Whether single latent dimensions follow single factors of the data: six published scores.

All of them take codes (N, D), real numbers, and factors (N, F), whole numbers that name the values of F known factors;
a factor must have at least two values and a code at least one dimension that is not constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vaelab.checks import positive_int

Array = np.ndarray
Sampler = Callable[[int, int, int], Array]  # (factor, groups, size) -> codes (groups, size, D)


@dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness, each from 0 to 1.

    Attributes:
        disentanglement: how few factors a dimension serves.
        completeness: how few dimensions serve a factor.
        informativeness: accuracy of the predicted factors on the second half of the images, averaged over factors.
        correct: the share of factors predicted right for each of these images, (M,): its mean is the informativeness.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    correct: Array


def mutual_information(codes: Array, factors: Array, *, bins: int = 20) -> Array:
    """Returns the mutual information I(z_j; v_k) of every dimension and factor in nats, (D, F).

    I(z; v) = sum_z,v p(z, v) log (p(z, v) / (p(z) p(v))), with every dimension cut into `bins` of equal width between
    its smallest and largest value (as Locatello et al. 2019 do). Of N images it is too large by about
    (bins - 1)(values - 1) / 2N.

    Raises:
        ValueError: for arrays of another shape or kind, constant factors, codes that are all constant, or fewer than 2
            bins.
    """
    codes, factors = check(codes, factors)
    if positive_int("bins", bins) < 2:
        raise ValueError(f"bins must be at least 2, but is {bins}")
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    cells = np.minimum((codes - low) / width * bins, bins - 1).astype(np.int64)  # the largest value is in the last bin
    return np.array([[_information(cell, value) for value in factors.T] for cell in cells.T])


def shared_information(codes: Array, factors: Array, *, bins: int = 20) -> Array:
    """Returns the share of every factor's entropy that a dimension knows, I(z_j; v_k) / H(v_k) from 0 to 1, (D, F).

    Raises:
        ValueError: as `mutual_information` does.
    """
    information = mutual_information(codes, factors, bins=bins)
    return information / [_information(v, v) for v in np.asarray(factors).T]


def mig(codes: Array, factors: Array, *, bins: int = 20) -> float:
    """Returns the mutual information gap, (1/F) sum_k (I(z_j*; v_k) - max_j!=j* I(z_j; v_k)) / H(v_k), from 0 to 1.

    j* is the dimension that knows most of factor k (Chen, Li, Grosse & Duvenaud 2018, equation 6).

    Raises:
        ValueError: as `mutual_information` does, or for a single dimension.
    """
    codes, factors = check(codes, factors, dims=2)
    second, first = np.sort(shared_information(codes, factors, bins=bins), 0)[-2:]
    return float(np.mean(first - second))


def modularity(codes: Array, factors: Array, *, bins: int = 20) -> float:
    """Returns the mean over dimensions of 1 - sum_k!=k* I(z_j; v_k)^2 / ((F - 1) I(z_j; v_k*)^2), from 0 to 1.

    k* is the factor of which dimension j knows most (Ridgeway & Mozer 2018, equation 2). Dimensions that are constant
    know nothing and are left out; it says nothing about how much the others know.

    Raises:
        ValueError: as `mutual_information` does, or for a single factor.
    """
    codes, factors = check(codes, factors, factors_at_least=2)
    squares = mutual_information(codes[:, np.ptp(codes, 0) > 0], factors, bins=bins) ** 2
    best = squares.max(1)
    others = squares.sum(1) - best
    # What is independent of all factors down to the last bit follows none of them.
    return float(np.mean(np.where(best > 0, 1 - others / np.where(best > 0, best, 1) / (factors.shape[1] - 1), 0.0)))


def sap(codes: Array, factors: Array) -> float:
    """Returns the mean over factors of the gap between the two dimensions that predict it best, from 0 to 1.

    A dimension predicts a factor by thresholds on its value, one less than the factor has values, and its score is the
    balanced accuracy (Kumar, Sattigeri & Balakrishnan 2018, section 3). Thresholds are found on the first half of the
    images by a decision tree, and scored on the second.

    Deviations: a score of 0 is chance instead of 1 / values, so that one dimension for each factor scores 1, and
    factors that are ordered count as classes, too (the paper takes the squared correlation of continuous ones).

    Raises:
        ValueError: as `mutual_information` does, or for a single dimension, or too few images of some value.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    codes, factors = check(codes, factors, dims=2)
    gaps = []
    for value in factors.T:
        train, test = halves(len(codes))
        check_halves(value, train, test)
        scores = []
        for code in codes.T[:, :, None]:
            tree = DecisionTreeClassifier(max_leaf_nodes=len(np.unique(value)), class_weight="balanced", random_state=0)
            guesses = tree.fit(code[train], value[train]).predict(code[test])
            scores.append(max(0.0, balanced_accuracy_score(value[test], guesses, adjusted=True)))
        second, first = np.sort(scores)[-2:]
        gaps.append(first - second)
    return float(np.mean(gaps))


def dci(codes: Array, factors: Array, *, trees: int = 10, seed: int = 0) -> DCI:
    """Returns disentanglement, completeness and informativeness (Eastwood & Williams 2018, section 2).

    R_jk is the importance of dimension j in a classifier of factor k. With P_jk = R_jk / sum_k R_jk, disentanglement is
    sum_j rho_j (1 - H_F(P_j)), an entropy in base F, weighed by rho_j = sum_k R_jk / sum_jk R_jk; completeness is
    (1/F) sum_k (1 - H_D(P_k)) with P_jk = R_jk / sum_j R_jk, in base D.

    The classifiers are random forests, as in the paper, trained on the first half of the images; every split considers
    every dimension, so that a dimension is important only if none is better. Importances depend on the classifier:
    compare figures of the same kind only (Locatello et al. 2019 take boosted trees).

    Args:
        codes: (N, D).
        factors: (N, F).
        trees: in every forest.
        seed: of the forests.

    Raises:
        ValueError: as `mutual_information` does, or for a single dimension or factor, or too few images of some value.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes, factors = check(codes, factors, dims=2, factors_at_least=2)
    positive_int("trees", trees)
    train, test = halves(len(codes))
    importances, correct = [], []
    for value in factors.T:
        check_halves(value, train, test)
        forest = RandomForestClassifier(trees, max_features=None, min_samples_leaf=2, random_state=seed)
        forest.fit(codes[train], value[train])
        importances.append(forest.feature_importances_)
        correct.append(forest.predict(codes[test]) == value[test])
    r = np.stack(importances, 1)  # (D, F)
    if not r.any():
        raise ValueError(f"{len(codes)} images are too few for forests to learn from; take more")
    weights = r.sum(1) / r.sum()
    share = np.mean(correct, 0)
    return DCI(
        disentanglement=float(weights @ (1 - _entropy(r, 1))),
        completeness=float(np.mean(1 - _entropy(r, 0))),
        informativeness=float(share.mean()),
        correct=share,
    )


def factor_vae_score(
    sampler: Sampler, scale: Array, num_factors: int, *, votes: int = 800, size: int = 64, seed: int = 0
) -> float:
    """Returns how often the dimension that varies least tells which factor was fixed, from 1 / F (chance) to 1.

    A vote: fix a random factor at a random value, take `size` images, divide their codes by their standard deviations
    over all data, and take the dimension of the smallest variance. A majority vote by dimension, learned from `votes`
    of them, guesses the factor of `votes` others (Kim & Mnih 2018, section 4). Deviation: the paper scores the votes
    that the guess was learned from.

    Args:
        sampler: (factor, groups, size) -> codes (groups, size, D), with one value of that factor in each group.
        scale: standard deviation of every dimension over all data, (D,); dimensions where it is 0 are left out.
        num_factors: F.
        votes: to learn from, and as many to score.
        size: images of a vote.
        seed: of the choice of factors.

    Raises:
        ValueError: if all dimensions are constant, there is a single factor, or too few votes or images of one.
    """
    alive = _alive(scale, num_factors)
    if positive_int("size", size) < 2:
        raise ValueError(f"size must be at least 2 images, which differ in all but a factor, but is {size}")

    def votes_of(factor: int, number: int) -> Array:
        spread = (sampler(factor, number, size)[:, :, alive] / scale[alive]).var(1)  # (number, D)
        return spread.argmin(1)

    (d_train, k_train), (d_test, k_test) = _rounds(votes_of, num_factors, votes, seed)
    counts = np.zeros((int(alive.sum()), num_factors))
    np.add.at(counts, (d_train, k_train), 1)
    return float(np.mean(counts.argmax(1)[d_test] == k_test))


def beta_vae_score(
    sampler: Sampler, scale: Array, num_factors: int, *, votes: int = 800, size: int = 64, seed: int = 0
) -> float:
    """Returns how often a linear classifier tells which factor pairs of images share, from 1 / F (chance) to 1.

    It is given the mean of |z - z'| over `size` pairs that share one factor, of another value in each pair (Higgins et
    al. 2017, section 3), learns from `votes` such means and is scored on `votes` others. Deviation: differences are
    divided by the standard deviations over all data, so that the scale of a dimension changes nothing.

    Args:
        sampler: as for `factor_vae_score`; it is asked for groups of two.
        scale: likewise.
        num_factors: F.
        votes: to learn from, and as many to score.
        size: pairs of a vote.
        seed: of the choice of factors.

    Raises:
        ValueError: if all dimensions are constant, there is a single factor, or too few votes or images of one.
    """
    from sklearn.linear_model import LogisticRegression

    alive = _alive(scale, num_factors)
    positive_int("size", size)

    def differences(factor: int, number: int) -> Array:
        pairs = sampler(factor, number * size, 2)[:, :, alive] / scale[alive]
        return np.abs(pairs[:, 0] - pairs[:, 1]).reshape(number, size, -1).mean(1)

    train, test = _rounds(differences, num_factors, votes, seed)
    # Means over `size` pairs lie close together: hardly any regularisation, or it would hide their differences.
    return float(LogisticRegression(C=1e4, max_iter=5000).fit(*train).score(*test))


class FixedFactor:
    """Samples codes of images that share the value of one factor, from a finite set of them.

    Values come as often as they have images; the first image of a group is any one of them, and the others follow at
    random, with replacement, but never the first again.

    Args:
        codes: (N, D).
        factors: (N, F).
        seed: of the draws.

    Attributes:
        scale: standard deviation of every dimension, (D,); exactly 0 for constant ones, whose mean may be rounded.

    Raises:
        ValueError: as `mutual_information` does, or if there is a single image of some value.
    """

    def __init__(self, codes: Array, factors: Array, *, seed: int = 0) -> None:
        self.codes, self.factors = check(codes, factors)
        self.rng = np.random.default_rng(seed)
        self.scale = np.where(np.ptp(self.codes, 0) > 0, self.codes.std(0), 0.0)
        self.order = self.factors.argsort(0, kind="stable")  # (N, F): images by the value of each factor
        ordered = np.take_along_axis(self.factors, self.order, 0)
        self.first = np.stack([np.searchsorted(o, v) for o, v in zip(ordered.T, self.factors.T, strict=True)], 1)
        end = np.stack([np.searchsorted(o, v, "right") for o, v in zip(ordered.T, self.factors.T, strict=True)], 1)
        self.count = end - self.first  # (N, F): images with the same value as this one
        if self.count.min() < 2:
            k = int(self.count.min(0).argmin())
            raise ValueError(f"factor {k} has values of a single image, which shares it with none; take more images")

    def __call__(self, factor: int, groups: int, size: int) -> Array:
        """Returns codes (groups, size, D), with one value of the factor in each group."""
        rank = np.empty(len(self.codes), dtype=np.int64)  # of every image among those of its value
        rank[self.order[:, factor]] = np.arange(len(self.codes))
        one = self.rng.integers(len(self.codes), size=groups)
        first, count = self.first[one, factor], self.count[one, factor]
        step = 1 + self.rng.integers(0, (count - 1)[:, None], size=(groups, size - 1))
        others = first[:, None] + (rank[one][:, None] - first[:, None] + step) % count[:, None]
        return self.codes[np.concatenate([one[:, None], self.order[others, factor]], 1)]


def check(codes: Array, factors: Array, *, dims: int = 1, factors_at_least: int = 1) -> tuple[Array, Array]:
    """Returns codes as float64, and factors with their values counted from 0.

    Raises:
        ValueError: saying what is wrong with them.
    """
    codes, factors = np.asarray(codes), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or len(codes) < 2:
        raise ValueError(
            f"codes must be (N, D) and factors (N, F) of the same N >= 2 images, but are {codes.shape} and "
            f"{factors.shape}"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise ValueError(f"factors must be whole numbers that name values, but are {factors.dtype}")
    codes = codes.astype(np.float64)
    if not np.isfinite(codes).all():
        raise ValueError("codes must be finite, but some are NaN or infinite; train the encoder anew")
    if codes.shape[1] < dims or factors.shape[1] < factors_at_least:
        raise ValueError(
            f"this score needs at least {dims} latent dimensions and {factors_at_least} factors, but there are "
            f"{codes.shape[1]} and {factors.shape[1]}"
        )
    if (constant := np.flatnonzero(np.ptp(factors, 0) == 0)).size:
        raise ValueError(f"factor {constant[0]} has the same value for all images; leave it out")
    if (np.ptp(codes, 0) == 0).all():
        raise ValueError("all latent dimensions are constant: they hold nothing about the images")
    return codes, np.stack([np.unique(value, return_inverse=True)[1] for value in factors.T], 1)


def halves(number: int) -> tuple[Array, Array]:
    """Returns two halves of so many images, as they come in a fixed random order."""
    order = np.random.default_rng(0).permutation(number)
    return order[: number // 2], order[number // 2 :]


def check_halves(values: Array, train: Array, test: Array) -> None:
    """Raises a ValueError unless both halves hold all values of a factor."""
    missing = np.setdiff1d(values, np.intersect1d(values[train], values[test]))
    if missing.size:
        raise ValueError(
            f"{len(values)} images are too few: one half of them has none of value {missing[0]} of a factor; take more"
        )


def _information(a: Array, b: Array) -> float:
    """Returns the mutual information of two columns of whole numbers in nats; of one with itself, its entropy."""
    joint = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1)).reshape(-1, b.max() + 1)
    p = joint / len(a)
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    some = p > 0
    return max(0.0, float((p[some] * np.log(p[some] / independent[some])).sum()))


def _entropy(r: Array, axis: int) -> Array:
    """Returns the entropy of r, made to sum to 1 along an axis, in base of its length; 1 where all of r is 0."""
    total = r.sum(axis, keepdims=True)
    p = np.where(total > 0, r / np.where(total > 0, total, 1), 1 / r.shape[axis])
    logs = np.log(np.where(p > 0, p, 1))
    return -(p * logs).sum(axis) / np.log(r.shape[axis])


def _alive(scale: Array, num_factors: int) -> Array:
    alive = np.asarray(scale) > 0
    if not alive.any():
        raise ValueError("all latent dimensions are constant: they hold nothing about the images")
    if num_factors < 2:
        raise ValueError(f"this score tells factors apart and needs at least two, but there is {num_factors}")
    return alive


def _rounds(take: Callable[[int, int], Array], num_factors: int, votes: int, seed: int) -> list[tuple[Array, Array]]:
    """Returns what was taken for random factors, and which they were, once to learn from and once to score."""
    positive_int("votes", votes)
    rng = np.random.default_rng(seed)
    rounds = []
    for _ in range(2):
        counts = np.bincount(rng.integers(num_factors, size=votes), minlength=num_factors)
        if not counts.all():
            raise ValueError(f"{votes} votes are too few for {num_factors} factors: one of them has none; take more")
        taken = np.concatenate([take(k, int(n)) for k, n in enumerate(counts)])
        rounds.append((taken, np.repeat(np.arange(num_factors), counts)))
    return rounds
