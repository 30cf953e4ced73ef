"""How alike two sets of images are, by their feature vectors: quality, diversity and memorisation of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaelab.checks import positive_int

CHUNK = 1000  # rows of a distance matrix at a time


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Returns the Frechet distance between Gaussians fitted to two sets of vectors (Heusel et al. 2017, equation 6).

    FID = |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)). It is biased upwards, by about D / N: compare only between
    sets of the same size.

    Args:
        x: vectors (N, D).
        y: vectors (M, D).

    Raises:
        ValueError: for fewer than two vectors, different dimensions, or values that are not finite.
    """
    x, y = _vectors(x, y)
    s_x, s_y = x.T.cov().reshape(x.shape[1], -1), y.T.cov().reshape(y.shape[1], -1)
    values, vectors = torch.linalg.eigh(s_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ s_y @ root).clamp(min=0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + s_x.trace() + s_y.trace() - 2 * overlap)


def frechet_error(x: Tensor, y: Tensor, *, resamples: int = 20, seed: int = 0) -> float:
    """Returns the standard error of `frechet_distance` by a bootstrap of both sets; near distance 0 it is too wide.

    Args:
        x: vectors (N, D).
        y: vectors (M, D).
        resamples: number of bootstrap sets; their mean is not used, because it is biased once more.
        seed: of the bootstrap.

    Raises:
        ValueError: for a `resamples` below 2, and as `frechet_distance`.
    """
    if positive_int("resamples", resamples) < 2:
        raise ValueError(f"resamples must be at least 2, but is {resamples}")
    x, y = _vectors(x, y)
    generator = torch.Generator().manual_seed(seed)

    def drawn(v: Tensor) -> Tensor:
        return v[torch.randint(len(v), (len(v),), generator=generator).to(v.device)]

    return float(torch.tensor([frechet_distance(drawn(x), drawn(y)) for _ in range(resamples)]).std())


def kernel_distance(x: Tensor, y: Tensor, *, subsets: int = 10) -> tuple[float, float | None]:
    """Returns the squared maximum mean discrepancy of two sets of vectors, and its standard error.

    KID = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), x != x', y != y', k(a, b) = (a . b / D + 1)^3: unbiased, so
    that it is 0 on average for two sets from one distribution, and may be negative (Binkowski et al. 2018). It is the
    mean over disjoint subsets, whose spread gives the error s / sqrt(subsets); the paper's subsets overlap.

    Args:
        x: vectors (N, D) in random order.
        y: vectors (M, D) in random order.
        subsets: number of subsets of each set; None of an error for one.

    Raises:
        ValueError: for a `subsets` below 1, fewer than two vectors in a subset, and as `frechet_distance`.
    """
    x, y = _vectors(x, y)
    size = min(len(x), len(y)) // positive_int("subsets", subsets)
    if size < 2:
        raise ValueError(
            f"{subsets} subsets need at least {2 * subsets} vectors, but there are {min(len(x), len(y))}; take more "
            "images or fewer subsets"
        )

    def k(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1).pow(3)

    def within(a: Tensor) -> Tensor:
        matrix = k(a, a)
        return (matrix.sum() - matrix.trace()) / (size * (size - 1))

    pairs = list(zip(x.split(size)[:subsets], y.split(size)[:subsets], strict=True))
    values = torch.stack([within(a) + within(b) - 2 * k(a, b).mean() for a, b in pairs])
    return float(values.mean()), float(values.std() / math.sqrt(subsets)) if subsets > 1 else None


@dataclass(frozen=True)
class Manifold:
    """The parts of `manifold`, one value of each image; their means are the figures."""

    precision: Tensor  # (M,), of the samples
    recall: Tensor  # (N,), of the real images
    density: Tensor  # (M,), of the samples
    coverage: Tensor  # (N,), of the real images


def manifold(real: Tensor, samples: Tensor, *, k: int = 5) -> Manifold:
    """Compares balls around vectors, each as wide as the distance to the k-th nearest other one of its set.

    - precision: whether a sample lies in the ball of a real image; recall: whether a real image lies in the ball of a
      sample (Kynkaanniemi et al. 2019, equations 1 and 2).
    - density: in how many balls of real images a sample lies, divided by k; coverage: whether the ball of a real image
      holds a sample (Naeem et al. 2020, equations 4 and 5).

    For two sets of one distribution density is 1 on average and coverage 1 - 2^-k for sets of one size.

    Args:
        real: vectors (N, D).
        samples: vectors (M, D).
        k: which neighbour gives the radius.

    Raises:
        ValueError: for a `k` below 1, sets of at most k vectors, and as `frechet_distance`.
    """
    real, samples = _vectors(real, samples)
    if min(len(real), len(samples)) <= positive_int("k", k):
        raise ValueError(
            f"k = {k} needs more than {k} vectors, but there are {min(len(real), len(samples))}; take more images or a "
            "smaller k"
        )
    distance = _distances(samples, real)  # (M, N)
    inside = distance <= _radii(real, k)
    return Manifold(
        precision=inside.any(1).double(),
        recall=(distance <= _radii(samples, k).unsqueeze(1)).any(0).double(),
        density=inside.double().sum(1) / k,
        coverage=inside.any(0).double(),
    )


def nearest(x: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the Euclidean distance of every x to the nearest of others, and the number of that one, (N,) each.

    Args:
        x: images or vectors (N, ...).
        among: others (M, ...), from which candidates are found in float32.

    Raises:
        ValueError: if there is nothing among which to look, or the shapes differ.
    """
    if not len(among) or x.shape[1:] != among.shape[1:]:
        raise ValueError(f"neighbours must be of the shape of the images, but are {(*among.shape,)} for {(*x.shape,)}")
    rows, others = x.flatten(1).float(), among.flatten(1).float()
    half = others.square().sum(1) / 2
    index = torch.cat([(half - part @ others.T).argmin(1) for part in rows.split(100)])
    distance = (x.flatten(1).double() - among.flatten(1)[index].double()).norm(dim=1)
    return distance, index


def entropy(probabilities: Tensor) -> tuple[float, float]:
    """Returns the entropy in nats of the classes that images are given, and its standard error (delta method).

    H = -sum_c p_c log p_c with p_c the share of images whose most probable class is c: log C if all are alike, 0 if all
    images are of one class. It is biased downwards by about (C - 1) / 2N.

    Args:
        probabilities: q(y|x), (N, C), or anything whose largest entry says the class.

    Raises:
        ValueError: for fewer than two images.
    """
    if len(probabilities) < 2:
        raise ValueError(f"the entropy needs at least 2 images, but there are {len(probabilities)}; take more images")
    guesses = probabilities.argmax(1)
    surprise = -class_shares(guesses, probabilities.shape[1]).log()[guesses]  # of every image
    return float(surprise.mean()), float(surprise.std() / math.sqrt(len(surprise)))


def class_shares(classes: Tensor, num_classes: int) -> Tensor:
    """Returns the share of every class, (C,), among labels (N,).

    Raises:
        ValueError: for no labels, or labels that are no class.
    """
    if not len(classes):
        raise ValueError("the shares of classes need at least one label, but there is none; take more images")
    if classes.min() < 0 or classes.max() >= num_classes:
        raise ValueError(
            f"labels must lie between 0 and {num_classes - 1}, but go from {classes.min()} to {classes.max()}; leave "
            "images without a label out"
        )
    return classes.bincount(minlength=num_classes).double() / len(classes)


def _vectors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"both must be vectors (N, D) of one D, but are {tuple(x.shape)} and {tuple(y.shape)}")
    if min(len(x), len(y)) < 2:
        raise ValueError(
            f"at least 2 vectors of each set are needed, but there are {len(x)} and {len(y)}; take more images"
        )
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("vectors must be finite, but some are NaN or infinite; look at the samples, or train anew")
    return x.double(), y.double()


def _distances(x: Tensor, y: Tensor) -> Tensor:
    exactly = "donot_use_mm_for_euclid_dist"  # equal vectors are at distance 0
    return torch.cat([torch.cdist(part, y, compute_mode=exactly) for part in x.split(CHUNK)])


def _radii(x: Tensor, k: int) -> Tensor:
    """Returns the distance of every vector to its k-th nearest other one, (N,); its own 0 is not counted."""
    return _distances(x, x).kthvalue(k + 1, dim=1).values
