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


def test_features_of_other_images_keep_their_means_and_lose_their_covariances() -> None:
    """With every feature shuffled by itself S_y is the identity: FID is that of its closed form."""
    c = torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double()
    x = normal(4000, 0, 2) @ torch.linalg.cholesky(c).T
    shuffled = torch.stack([x[:, 0], x[torch.randperm(4000, generator=torch.Generator().manual_seed(1)), 1]], 1)
    expected = 4 - 2 * (1.8**0.5 + 0.2**0.5)
    assert frechet_distance(x, shuffled) == pytest.approx(expected, abs=0.03)


def test_fid_has_fewer_vectors_than_dimensions_and_still_a_value() -> None:
    assert frechet_distance(normal(5, 0, 20), normal(5, 1, 20)) > 0


def test_the_bootstrap_error_is_the_spread_over_data_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(2, 200, 4, generator=generator, dtype=torch.float64) for _ in range(300)]
    values = torch.tensor([frechet_distance(x, y + 1) for x, y in draws])
    errors = torch.tensor([frechet_error(x, y + 1) for x, y in draws[:20]])
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.2)


def test_the_bootstrap_error_does_not_change_when_both_sets_are_turned_or_moved() -> None:
    x, y = normal(100, 0, 4), normal(80, 1, 4) + 1
    turn = torch.linalg.qr(normal(4, 2, 4)).Q
    assert frechet_error(x @ turn + 3, y @ turn + 3) == pytest.approx(frechet_error(x, y))


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


def test_kid_of_a_set_far_away_is_that_of_its_mean_and_order_and_rotation_do_not_matter() -> None:
    x, y = normal(40, 0), normal(40, 1) + 2
    q = torch.linalg.qr(normal(4, 2)).Q
    expected, _ = kernel_distance(x, y, subsets=1)
    for a, b in ((x @ q, y @ q), (x.flip(0), y), (y, x)):
        assert kernel_distance(a, b, subsets=1)[0] == pytest.approx(expected)
    one, other = torch.ones(20, 4).double(), torch.zeros(20, 4).double()
    assert kernel_distance(one, other)[0] == (1 + 1) ** 3 + 1 - 2 * 1
    assert kernel_distance(one, one)[0] == 0


def test_neither_order_nor_scale_nor_rotation_changes_a_manifold() -> None:
    x, y = normal(60, 0), 1.5 * normal(50, 1)
    q = torch.linalg.qr(normal(4, 2)).Q
    found = manifold(x, y)
    assert 0.2 < found.precision.mean() < 1
    for a, b in ((7 * x @ q + 3, 7 * y @ q + 3), (x.flip(0), y.flip(0))):
        other = manifold(a, b)
        for name in ("precision", "recall", "density", "coverage"):
            assert float(getattr(other, name).mean()) == pytest.approx(float(getattr(found, name).mean()))


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
    order = torch.randperm(50, generator=torch.Generator().manual_seed(2))
    other, where = nearest_to(x, among[order])
    assert torch.equal(other, distance)
    assert torch.equal(order[where], index)


def test_entropy_does_not_depend_on_order_or_on_the_names_of_classes() -> None:
    scores = normal(200, 0, 5)
    expected = entropy(scores)
    assert expected == pytest.approx((math.log(5), 0), abs=0.1)  # scores that say nothing
    assert entropy(scores.flip(0)) == pytest.approx(expected)
    assert entropy(scores.flip(1)) == pytest.approx(expected)
    assert entropy(scores.softmax(1)) == pytest.approx(expected)


def test_entropy_of_even_and_collapsed_classes() -> None:
    even, error = entropy(torch.eye(5).repeat(20, 1))
    assert (even, error) == (pytest.approx(math.log(5)), pytest.approx(0, abs=1e-7))
    assert entropy(torch.eye(5)[[2]].repeat(20, 1)) == (0.0, 0.0)
    assert class_shares(torch.tensor([0, 2, 2, 2]), 4).tolist() == [0.25, 0, 0.75, 0]
    labels = torch.randint(4, (50,), generator=torch.Generator().manual_seed(0))
    names = torch.tensor([2, 0, 3, 1])
    assert torch.equal(class_shares(labels.flip(0), 4), class_shares(labels, 4))
    assert torch.equal(class_shares(names[labels], 4)[names], class_shares(labels, 4))


def test_too_few_vectors_and_unlike_ones_are_refused() -> None:
    for measure in (frechet_distance, frechet_error, kernel_distance, manifold):
        with pytest.raises(ValueError, match="at least 2 vectors"):
            measure(normal(1, 0), normal(9, 1))
        with pytest.raises(ValueError, match="vectors \\(N, D\\) of one D"):
            measure(normal(9, 0), normal(9, 1, 3))
        with pytest.raises(ValueError, match="vectors must be finite"):
            measure(normal(20, 0), normal(20, 1) / 0)
    with pytest.raises(ValueError, match="10 subsets need at least 20 vectors, but there are 19"):
        kernel_distance(normal(19, 0), normal(50, 1))
    with pytest.raises(ValueError, match="k = 5 needs more than 5 vectors, but there are 5"):
        manifold(normal(5, 0), normal(50, 1))
    with pytest.raises(ValueError, match="at least 2 images"):
        entropy(torch.eye(3)[:1])
    with pytest.raises(ValueError, match="resamples must be at least 2, but is 1"):
        frechet_error(normal(9, 0), normal(9, 1), resamples=1)
    for others in (normal(0, 0), normal(5, 0, 3)):
        with pytest.raises(ValueError, match="neighbours must be of the shape of the images"):
            nearest_to(normal(5, 1), others)
    with pytest.raises(ValueError, match="at least one label"):
        class_shares(torch.zeros(0).long(), 3)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"between 0 and 2, but go from {min(0, wrong)} to {max(0, wrong)}"):
            class_shares(torch.tensor([0, wrong]), 3)
