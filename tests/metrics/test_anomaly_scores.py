"""AUROC and average precision of anomaly scores."""

from __future__ import annotations

import pytest
import torch

from vaelab.metrics.anomaly import auroc, average_precision

NORMAL = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ALIKE = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_perfect_score_has_1_and_a_reversed_one_has_0() -> None:
    assert auroc(NORMAL, NORMAL + 100) == (1.0, 0.0)
    assert auroc(NORMAL, NORMAL - 100) == (0.0, 0.0)
    assert average_precision(NORMAL, NORMAL + 100) == (1.0, pytest.approx(0))


def test_a_useless_score_has_one_half_within_its_error() -> None:
    value, error = auroc(NORMAL, ALIKE)
    assert abs(value - 0.5) < 3 * error
    precision, error = average_precision(NORMAL, ALIKE)
    assert abs(precision - 0.4) < 3 * error  # the share of anomalies


def test_shuffled_scores_are_useless_however_good_they_were() -> None:
    scores = torch.cat([NORMAL, NORMAL + 100])[torch.randperm(600, generator=torch.Generator().manual_seed(3))]
    for measure in (auroc, average_precision):
        value, error = measure(scores[:300], scores[300:])
        assert abs(value - 0.5) < 3 * error


def test_a_constant_score_has_one_half_exactly_and_the_share_of_anomalies_as_precision() -> None:
    assert auroc(torch.zeros(5), torch.zeros(7)) == (0.5, 0.0)
    assert average_precision(torch.zeros(5), torch.zeros(7)) == pytest.approx((7 / 12, 0))


def test_it_is_the_share_of_pairs_in_the_right_order() -> None:
    x, y = torch.tensor([0.0, 1.0, 1.0, 3.0]), torch.tensor([1.0, 2.0])
    pairs = (y[:, None] > x).double() + (y[:, None] == x).double() / 2
    assert auroc(x, y)[0] == pytest.approx(float(pairs.mean()))


def test_it_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    labels = torch.cat([torch.zeros(300), torch.ones(200)])
    expected = roc_auc_score(labels, torch.cat([NORMAL, ALIKE + 0.5]))
    assert auroc(NORMAL, ALIKE + 0.5)[0] == pytest.approx(expected)


def test_it_does_not_change_under_increasing_functions_or_reordering() -> None:
    expected = auroc(NORMAL, ALIKE + 1)
    assert auroc(NORMAL.exp(), (ALIKE + 1).exp()) == pytest.approx(expected)
    assert auroc(NORMAL.flip(0), (ALIKE + 1).flip(0)) == pytest.approx(expected)
    precision, error = average_precision(NORMAL, ALIKE + 1)
    assert average_precision(NORMAL.exp(), (ALIKE + 1).exp()) == pytest.approx((precision, error))
    assert average_precision(NORMAL.flip(0), (ALIKE + 1).flip(0))[0] == pytest.approx(precision)


def test_the_sets_in_each_others_place_and_the_reversed_score_have_the_rest() -> None:
    value, error = auroc(NORMAL, ALIKE + 1)
    assert auroc(ALIKE + 1, NORMAL) == pytest.approx((1 - value, error))
    assert auroc(-NORMAL, -ALIKE - 1) == pytest.approx((1 - value, error))


def test_average_precision_is_the_mean_over_anomalies_of_the_precision_at_their_scores() -> None:
    x, y = torch.tensor([0.0, 2.5, 5.0]), torch.tensor([1.0, 4.0, 6.0])
    assert average_precision(x, y)[0] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize(("function", "number", "rel"), [(auroc, 300, 0.1), (average_precision, 60, 0.25)])
def test_the_error_is_the_spread_over_data_sets(function, number, rel) -> None:
    generator = torch.Generator().manual_seed(2)
    draws = [
        function(torch.randn(60, generator=generator), torch.randn(40, generator=generator) + 0.7)
        for _ in range(number)
    ]
    values, errors = torch.tensor(draws).T
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=rel)


@pytest.mark.parametrize("function", [auroc, average_precision])
def test_too_few_and_infinite_scores_are_refused(function) -> None:
    with pytest.raises(ValueError, match="at least 2 normal and 2 anomalous scores are needed, but there are 1 and 5"):
        function(torch.zeros(1), torch.zeros(5))
    with pytest.raises(ValueError, match="must be finite"):
        function(torch.tensor([0.0, float("nan")]), torch.zeros(5))


def test_an_error_of_a_single_resample_is_refused() -> None:
    with pytest.raises(ValueError, match="resamples must be at least 2, but is 1"):
        average_precision(NORMAL, ALIKE, resamples=1)
