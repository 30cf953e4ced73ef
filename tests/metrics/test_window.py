"""Means over many batches, and the report of a term that broke."""

import math

import pytest
import torch

from vaelab.metrics import NonFiniteError, Window, weighted_means


def logs(loss: float, reconstruction: float, kl: float) -> dict[str, torch.Tensor | float]:
    """What an objective logs, in its order."""
    values = {"loss": loss, "elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
    return {**{name: torch.tensor(value) for name, value in values.items()}, "beta": 0.5}


def means(window: Window) -> dict[str, float]:
    return weighted_means(window.names, window.sums())


def test_means_are_weighted_by_the_size_of_the_batch() -> None:
    window = Window()
    window.add(logs(1.0, -3.0, 2.0), 128)
    window.add(logs(5.0, -7.0, 4.0), 128)
    window.add(logs(9.0, -1.0, 6.0), 16)
    assert means(window) == pytest.approx(
        {
            "loss": (128 * 1 + 128 * 5 + 16 * 9) / 272,
            "elbo": (128 * -5 + 128 * -11 + 16 * -7) / 272,
            "reconstruction": (128 * -3 + 128 * -7 + 16 * -1) / 272,
            "kl": (128 * 2 + 128 * 4 + 16 * 6) / 272,
        }
    )
    assert (len(window), window.examples) == (3, 272)


def test_means_equal_those_of_one_large_batch_however_it_was_split() -> None:
    torch.manual_seed(0)
    values = 100 * torch.randn(60)
    for sizes in ([60], [59, 1], [20, 20, 20], [7, 13, 40]):
        window = Window()
        for part in values.split(sizes):
            window.add({"loss": part.mean()}, len(part))
        assert means(window)["loss"] == pytest.approx(values.double().mean().item(), rel=1e-5)


def test_many_batches_are_added_without_loss_of_precision() -> None:
    window = Window()
    for _ in range(5000):
        window.add({"loss": torch.tensor(1e4 + 0.125)}, 128)
    assert window.sums().dtype == torch.float64
    assert means(window)["loss"] == 1e4 + 0.125


def test_sums_of_several_processes_add_up() -> None:
    first, second = Window(), Window()
    first.add({"loss": torch.tensor(1.0)}, 10)
    second.add({"loss": torch.tensor(4.0)}, 20)
    assert weighted_means(first.names, first.sums() + second.sums()) == pytest.approx({"loss": 3.0})


def test_empty_batches_are_ignored() -> None:
    window = Window()
    window.add({"loss": torch.zeros(0).mean()}, 0)  # NaN
    window.add({"loss": torch.tensor(2.0)}, 4)
    assert means(window) == {"loss": 2.0}
    assert window.examples == 4


def test_the_mean_of_nothing_is_not_a_number() -> None:
    window = Window()
    window.add({"loss": torch.zeros(0).mean()}, 0)
    assert math.isnan(means(window)["loss"])


def test_plain_numbers_keep_their_last_value_and_stay_out_of_the_means() -> None:
    window = Window()
    window.add({"loss": torch.tensor(1.0), "beta": 0.1}, 4)
    window.add({"loss": torch.tensor(2.0), "beta": 0.2}, 4)
    assert window.scalars == {"beta": 0.2}
    assert window.names == ["loss"]


def test_cleared_batches_are_forgotten() -> None:
    window = Window()
    window.add({"loss": torch.tensor(100.0)}, 4)
    window.clear()
    assert (len(window), window.examples) == (0, 0)
    window.add({"loss": torch.tensor(2.0)}, 1)
    assert means(window) == {"loss": 2.0}


@pytest.mark.parametrize(
    ("broken", "term"),
    [
        (logs(math.nan, math.nan, 1.0), "reconstruction"),
        (logs(math.nan, -1.0, math.inf), "kl"),
        (logs(math.nan, math.nan, math.nan), "reconstruction"),
        (logs(math.inf, -1.0, 1.0), "loss"),
        ({"loss": torch.tensor(-math.inf), "elbo": torch.tensor(math.inf)}, "loss"),
    ],
)
def test_a_broken_term_is_named_by_the_most_basic_that_broke(broken: dict[str, torch.Tensor], term: str) -> None:
    window = Window()
    window.add(broken, 4)
    with pytest.raises(NonFiniteError) as caught:
        window.sums()
    assert caught.value.term == term
    assert str(caught.value) == f"{term} is {caught.value.value}"
    value = broken[term].item()
    assert caught.value.value == value or (math.isnan(caught.value.value) and math.isnan(value))


def test_a_broken_term_is_dated_by_the_first_batch_that_broke() -> None:
    window = Window()
    for kl in (1.0, 2.0, math.inf, math.nan):
        window.add(logs(kl, -1.0, kl), 4)
    with pytest.raises(NonFiniteError) as caught:
        window.sums()
    assert (caught.value.offset, caught.value.term, caught.value.value) == (2, "kl", math.inf)
