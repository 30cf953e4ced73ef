"""Disentanglement of representations whose scores are known: perfect, constant, duplicated, rotated, shuffled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from vaelab.metrics.disentanglement import (
    FixedFactor,
    beta_vae_score,
    dci,
    factor_vae_score,
    mig,
    modularity,
    mutual_information,
    sap,
)

RNG = np.random.default_rng(0)
FACTORS = np.stack([RNG.integers(0, n, 3000) for n in (3, 4, 5)], 1)


def votes(score: Callable[..., float]) -> Callable[[np.ndarray, np.ndarray], float]:
    def measured(codes: np.ndarray, factors: np.ndarray) -> float:
        sampler = FixedFactor(codes, factors)
        return score(sampler, sampler.scale, factors.shape[1], votes=300, size=32)

    return measured


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mig": mig,
    "modularity": modularity,
    "sap": sap,
    "dci_disentanglement": lambda z, v: dci(z, v).disentanglement,
    "dci_completeness": lambda z, v: dci(z, v).completeness,
    "dci_informativeness": lambda z, v: dci(z, v).informativeness,
    "factor_vae": votes(factor_vae_score),
    "beta_vae": votes(beta_vae_score),
}
every_score = pytest.mark.parametrize("name", SCORES)
GAPS = ("mig", "sap", "dci_disentanglement", "dci_completeness")  # scores that are 0 for useless codes


def rotated(codes: np.ndarray) -> np.ndarray:
    """Turns standardised codes so that every dimension mixes all of them equally."""
    mix, _ = np.linalg.qr(np.array([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]]).T)
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    return (codes - codes.mean(0)) / codes.std(0) @ mix @ turn


@every_score
def test_one_dimension_for_each_factor_is_perfect(name: str) -> None:
    assert SCORES[name](FACTORS.astype(float), FACTORS) == pytest.approx(1.0, abs=0.02)


@every_score
def test_neither_the_order_nor_the_scale_nor_the_sign_of_dimensions_matters(name: str) -> None:
    noise = np.random.default_rng(1).normal(size=(3000, 1))
    codes = np.concatenate([FACTORS + 0.4 * noise, noise], 1)
    other = codes[:, [3, 1, 0, 2]] * [-3.0, 0.01, 100.0, -1.0] + 7
    assert SCORES[name](other, FACTORS) == pytest.approx(SCORES[name](codes, FACTORS), abs=0.03)


@every_score
def test_neither_the_order_of_images_nor_that_of_factors_matters(name: str) -> None:
    codes = FACTORS + np.random.default_rng(1).normal(size=FACTORS.shape) * [0.2, 0.4, 0.6]
    order = np.random.default_rng(2).permutation(3000)
    exact = name in ("mig", "modularity")  # the others split images in halves, or draw some
    expected = SCORES[name](codes, FACTORS)
    assert SCORES[name](codes[order], FACTORS[order]) == pytest.approx(expected, abs=1e-9 if exact else 0.05)
    assert SCORES[name](codes, FACTORS[:, [2, 0, 1]]) == pytest.approx(expected, abs=1e-9 if exact else 0.05)


@every_score
def test_constant_dimensions_beside_perfect_ones_change_nothing(name: str) -> None:
    codes = np.concatenate([np.full((3000, 2), 3.3), FACTORS], 1)
    assert SCORES[name](codes, FACTORS) == pytest.approx(1.0, abs=0.02)


@every_score
def test_nothing_but_constant_dimensions_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="all latent dimensions are constant"):
        SCORES[name](np.ones((3000, 4)), FACTORS)


@every_score
def test_a_factor_with_one_value_and_codes_that_are_no_numbers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="factor 1 has the same value for all images; leave it out"):
        SCORES[name](FACTORS.astype(float), FACTORS * [1, 0, 1])
    with pytest.raises(ValueError, match="codes must be finite"):
        SCORES[name](np.where(FACTORS == 1, np.inf, FACTORS), FACTORS)


@every_score
def test_a_single_factor_is_refused_where_factors_are_told_apart(name: str) -> None:
    if name in ("mig", "sap"):
        assert SCORES[name](FACTORS.astype(float), FACTORS[:, :1]) == pytest.approx(1, abs=0.06)
    else:
        with pytest.raises(ValueError, match=r"at least (two|2 latent dimensions and 2 factors|1 latent .* 2 factors)"):
            SCORES[name](FACTORS.astype(float), FACTORS[:, :1])


@every_score
def test_codes_of_other_images_score_as_chance(name: str) -> None:
    codes = FACTORS[np.random.default_rng(3).permutation(3000)].astype(float)
    score = SCORES[name](codes, FACTORS)
    if name in ("factor_vae", "beta_vae"):
        assert score == pytest.approx(1 / 3, abs=0.1)
    elif name == "dci_informativeness":
        assert score == pytest.approx(np.mean([1 / 3, 1 / 4, 1 / 5]), abs=0.04)
    elif name in GAPS:
        assert score == pytest.approx(0, abs=0.06)
    else:  # modularity does not ask how much a dimension knows
        assert score < 0.95


@every_score
def test_a_rotation_of_perfect_codes_scores_lower_unless_only_information_counts(name: str) -> None:
    score = SCORES[name](rotated(FACTORS), FACTORS)
    if name == "dci_informativeness":
        assert score > 0.95
    elif name == "beta_vae":  # a linear classifier of differences still tells factors apart
        assert score <= 1.0
    else:
        assert score < 0.9


def test_two_copies_of_perfect_codes_are_neither_compact_nor_less_modular() -> None:
    codes = np.concatenate([FACTORS, FACTORS], 1).astype(float)
    assert mig(codes, FACTORS) == pytest.approx(0, abs=1e-9)
    assert sap(codes, FACTORS) == pytest.approx(0, abs=1e-9)
    assert modularity(codes, FACTORS) == pytest.approx(1, abs=0.01)
    found = dci(codes, FACTORS)
    assert found.disentanglement == pytest.approx(1, abs=0.01)
    assert found.informativeness == 1
    assert found.completeness < 0.9
    assert SCORES["factor_vae"](codes, FACTORS) == 1
    assert SCORES["beta_vae"](codes, FACTORS) == 1


def test_a_dimension_knows_all_of_its_own_factor_and_nothing_of_another() -> None:
    a, b = np.indices((4, 5)).reshape(2, -1).repeat(3, 1)
    found = mutual_information(np.stack([a, b], 1), np.stack([a, b], 1))
    np.testing.assert_allclose(found, np.diag(np.log([4, 5])), atol=1e-9)


def test_mutual_information_is_that_of_the_cells() -> None:
    codes = np.random.default_rng(4).normal(size=(500, 2)) + FACTORS[:500, :1]
    found = mutual_information(codes, FACTORS[:500], bins=7)
    for j in range(2):
        edges = np.linspace(codes[:, j].min(), codes[:, j].max(), 8)
        cells = np.digitize(codes[:, j], edges[1:-1])
        for k in range(3):
            assert found[j, k] == pytest.approx(mutual_info_score(cells, FACTORS[:500, k]), abs=1e-9)


def test_mig_of_a_noisy_channel_is_its_capacity() -> None:
    bit = np.repeat([0, 1], 5000)
    flipped = bit ^ (np.random.default_rng(5).random(10_000) < 0.11)
    entropy = -(0.11 * np.log2(0.11) + 0.89 * np.log2(0.89))
    noise = np.random.default_rng(6).normal(size=10_000)
    assert mig(np.stack([flipped, noise], 1), bit[:, None]) == pytest.approx(1 - entropy, abs=0.03)


def test_modularity_of_a_dimension_that_serves_two_factors_alike() -> None:
    a, b = np.indices((4, 4)).reshape(2, -1).repeat(50, 1)
    # Of F = 3 factors it knows two equally well: 1 - 1 / (3 - 1).
    codes = (4 * a + b).astype(float)[:, None]
    third = np.tile([0, 1], len(a) // 2)
    assert modularity(codes, np.stack([a, b, third], 1), bins=16) == pytest.approx(0.5, abs=0.01)


def test_factors_are_names_of_values_so_that_other_numbers_change_nothing() -> None:
    codes = FACTORS + 0.3 * np.random.default_rng(7).normal(size=FACTORS.shape)
    for name in ("mig", "modularity", "sap"):
        assert SCORES[name](codes, FACTORS * 100 - 50) == pytest.approx(SCORES[name](codes, FACTORS), abs=1e-9)


def test_a_group_shares_its_factor_and_nothing_else() -> None:
    sampler = FixedFactor(FACTORS.astype(float), FACTORS, seed=1)
    groups = sampler(1, 400, 8)
    assert groups.shape == (400, 8, 3)
    assert (np.ptp(groups, 1)[:, 1] == 0).all()
    assert (np.ptp(groups, 1)[:, [0, 2]] > 0).mean() > 0.95
    shares = np.bincount(groups[:, 0, 1].astype(int)) / 400
    np.testing.assert_allclose(shares, np.bincount(FACTORS[:, 1]) / 3000, atol=0.08)
    index = np.arange(3000.0)[:, None]
    pairs = FixedFactor(index, FACTORS)(2, 2000, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.zeros((5, 2)), np.zeros((4, 2), dtype=int), r"of the same N >= 2 images"),
        (np.zeros(5), np.zeros((5, 1), dtype=int), r"codes must be \(N, D\)"),
        (np.eye(5), np.eye(5), "whole numbers that name values"),
        (np.full((5, 2), np.nan), np.eye(5, dtype=int), "NaN or infinite; train the encoder anew"),
        (np.eye(5), np.ones((5, 2), dtype=int), "factor 0 has the same value for all"),
        (np.eye(5)[:, :1], np.eye(5, dtype=int), "at least 2 latent dimensions"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(codes: np.ndarray, factors: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mig(codes, factors)


def test_too_few_images_are_refused() -> None:
    rare = FACTORS.copy()
    rare[:, 0] = 0
    rare[0, 0] = 1
    for score in (sap, dci):
        with pytest.raises(ValueError, match="too few"):
            score(FACTORS.astype(float), rare)
    with pytest.raises(ValueError, match="values of a single image"):
        FixedFactor(FACTORS.astype(float), rare)
    with pytest.raises(ValueError, match="at least two"):
        factor_vae_score(FixedFactor(FACTORS.astype(float), FACTORS), np.ones(3), 1)
    # The only image that differs lies in the half that is not learned from, or is left alone in its leaf.
    codes, factors = np.zeros((40, 2)), np.stack([np.arange(40) % 2, np.arange(40) // 2 % 2], 1)
    codes[0] = 1
    with pytest.raises(ValueError, match="40 images are too few for forests to learn from; take more"):
        dci(codes, factors)


def test_impossible_settings_are_refused() -> None:
    codes, sampler = FACTORS.astype(float), FixedFactor(FACTORS.astype(float), FACTORS)
    with pytest.raises(ValueError, match="bins must be at least 2, but is 1"):
        mig(codes, FACTORS, bins=1)
    with pytest.raises(ValueError, match="trees must be a whole number of at least 1"):
        dci(codes, FACTORS, trees=0)
    with pytest.raises(ValueError, match="size must be at least 2 images"):
        factor_vae_score(sampler, sampler.scale, 3, size=1)
    with pytest.raises(ValueError, match="size must be a whole number of at least 1"):
        beta_vae_score(sampler, sampler.scale, 3, size=0)
    for score in (factor_vae_score, beta_vae_score):
        with pytest.raises(ValueError, match="votes must be a whole number of at least 1"):
            score(sampler, sampler.scale, 3, votes=0)
        with pytest.raises(ValueError, match="2 votes are too few for 3 factors: one of them has none; take more"):
            score(sampler, sampler.scale, 3, votes=2)
