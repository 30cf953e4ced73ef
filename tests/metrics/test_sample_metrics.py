"""FID, KID, precision, recall, density, coverage, neighbours and entropy of sets of vectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.metrics.samples import class_shares, entropy, frechet_distance, frechet_error, kernel_distance, manifold
from vaelab.metrics.samples import nearest as nearest_to


def normal(number: int, seed: int, dim: int = 4) -> Tensor:
    return torch.randn(number, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_fid_of_a_set_with_itself_is_0() -> None:
    assert frechet_distance(normal(50, 0), normal(50, 0)) == pytest.approx(0, abs=1e-9)


def test_fid_of_gaussians_is_its_closed_form() -> None:
    x = normal(400, 0)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T  # mean 0, covariance I
    assert frechet_distance(x, x + 3) == pytest.approx(36)
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * (3 - 1) ** 2)


def test_fid_does_not_change_under_rotation_or_order_and_is_symmetric() -> None:
    x, y = normal(100, 0), 2 * normal(100, 1) + 1
    q = torch.linalg.qr(normal(4, 2)).Q
    expected = frechet_distance(x, y)
    for a, b in ((x @ q, y @ q), (x.flip(0), y), (y, x)):
        assert frechet_distance(a, b) == pytest.approx(expected)


def test_fid_has_fewer_vectors_than_dimensions_and_still_a_value() -> None:
    assert frechet_distance(normal(5, 0, 20), normal(5, 1, 20)) > 0


def test_the_bootstrap_error_is_the_spread_over_data_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 200, 4, generator=generator, dtype=torch.float64) for _ in range(300)]
    values = torch.tensor([frechet_distance(x, y + 1) for x, y in draws])
    errors = torch.tensor([frechet_error(x, y + 1) for x, y in draws[:20]])
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.2)


def test_kid_is_0_on_average_for_one_distribution_and_not_for_two() -> None:
    value, error = kernel_distance(normal(1000, 0), normal(1000, 1))
    assert error is not None
    assert abs(value) < 3 * error
    value, error = kernel_distance(normal(1000, 0), normal(1000, 1) + 0.5)
    assert error is not None
    assert value > 5 * error


def test_kid_of_one_subset_is_its_definition() -> None:
    x, y = normal(6, 0), normal(6, 1)

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 4 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = [sum(k(v[i], v[j]) for i, j in pairs if i != j) / 30 for v in (x, y)]
    across = sum(k(x[i], y[j]) for i, j in pairs) / 36
    assert kernel_distance(x, y, subsets=1) == (pytest.approx(sum(within) - 2 * across), None)


def test_a_set_lies_on_its_own_manifold() -> None:
    parts = manifold(normal(80, 0), normal(80, 0))
    assert all(bool((values == 1).all()) for values in (parts.precision, parts.recall, parts.coverage))


def test_sets_far_apart_share_nothing() -> None:
    parts = manifold(normal(80, 0), normal(80, 1) + 100)
    assert all(values.sum() == 0 for values in (parts.precision, parts.recall, parts.density, parts.coverage))


def test_two_sets_of_one_distribution_have_density_1_and_the_coverage_of_the_theorem() -> None:
    parts = manifold(normal(1500, 0), normal(1500, 1), k=3)
    assert float(parts.density.mean()) == pytest.approx(1, abs=0.05)
    assert float(parts.coverage.mean()) == pytest.approx(1 - 2**-3, abs=0.03)


def test_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    real = torch.cat([normal(100, 0), normal(100, 1) + 50])  # two modes
    parts = manifold(real, normal(200, 2) * 0.5)  # the middle of one
    assert parts.precision.mean() > 0.9
    assert parts.recall.mean() < 0.5
    assert parts.coverage[100:].sum() == 0


def test_an_outlier_among_real_images_raises_precision_but_not_density() -> None:
    real = torch.cat([normal(200, 0), torch.full((1, 4), 12.0)])
    samples = normal(200, 1) + 8  # near the outlier alone, whose ball is huge
    parts = manifold(real, samples)
    assert parts.precision.mean() > 0.9
    assert parts.density.mean() < 0.3


def test_distances_and_neighbours_are_exact() -> None:
    x, among = normal(30, 0), normal(50, 1)
    distance, index = nearest_to(x, among)
    table = torch.cdist(x, among)
    assert torch.equal(index, table.argmin(1))
    assert torch.allclose(distance, table.amin(1))
    assert nearest_to(among[7:9], among)[0].tolist() == [0, 0]


def test_entropy_of_even_and_collapsed_classes() -> None:
    even, error = entropy(torch.eye(5).repeat(20, 1))
    assert (even, error) == (pytest.approx(math.log(5)), pytest.approx(0, abs=1e-7))
    assert entropy(torch.eye(5)[[2]].repeat(20, 1)) == (0.0, 0.0)
    assert class_shares(torch.tensor([0, 2, 2, 2]), 4).tolist() == [0.25, 0, 0.75, 0]


def test_too_few_vectors_and_unlike_ones_are_refused() -> None:
    for measure in (frechet_distance, kernel_distance, manifold):
        with pytest.raises(ValueError, match="at least 2 vectors"):
            measure(normal(1, 0), normal(9, 1))
        with pytest.raises(ValueError, match="vectors \\(N, D\\) of one D"):
            measure(normal(9, 0), normal(9, 1, 3))
    with pytest.raises(ValueError, match="10 subsets need at least 20 vectors, but there are 19"):
        kernel_distance(normal(19, 0), normal(50, 1))
    with pytest.raises(ValueError, match="k = 5 needs more than 5 vectors, but there are 5"):
        manifold(normal(5, 0), normal(50, 1))
    with pytest.raises(ValueError, match="at least 2 images"):
        entropy(torch.eye(3)[:1])
