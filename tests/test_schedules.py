"""Schedules: pure functions of the number of batches seen."""

import math
from itertools import pairwise

import pytest

from vaelab.schedules import Constant, Cosine, Exponential, Linear, Schedule, Step

SCHEDULES = [
    Constant(value=0.3),
    Linear(epochs=2, steps_per_epoch=10, start=0.2, end=0.8),
    Cosine(epochs=10, steps_per_epoch=10, warmup_epochs=2, end=0.1),
    Exponential(rate=0.5, steps_per_epoch=10),
    Step(rate=0.1, epochs=2, steps_per_epoch=10),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_a_schedule_depends_on_the_step_alone(schedule: Schedule) -> None:
    steps = [0, 1, 19, 20, 21, 50, 99, 100, 1000]
    forward = [schedule(step) for step in steps]
    backward = [schedule(step) for step in reversed(steps)]
    assert forward == backward[::-1]
    assert all(math.isfinite(value) for value in forward)


@pytest.mark.parametrize("step", [0, 7, 10_000])
def test_constant(step: int) -> None:
    assert Constant()(step) == 1
    assert Constant(value=0.3)(step) == 0.3


@pytest.mark.parametrize(("step", "value"), [(0, 0.0), (1, 0.05), (10, 0.5), (19, 0.95), (20, 1.0), (9999, 1.0)])
def test_linear_ramps_from_zero_to_one(step: int, value: float) -> None:
    assert Linear(epochs=2, steps_per_epoch=10)(step) == pytest.approx(value)


@pytest.mark.parametrize(("step", "value"), [(0, 4.0), (5, 3.0), (10, 2.0), (50, 2.0)])
def test_linear_ramps_between_any_two_values(step: int, value: float) -> None:
    assert Linear(epochs=0.5, steps_per_epoch=20, start=4.0, end=2.0)(step) == pytest.approx(value)


@pytest.mark.parametrize(
    ("step", "value"), [(0, 1.0), (25, (1 + math.cos(math.pi / 4)) / 2), (50, 0.5), (100, 0.0), (101, 0.0), (5000, 0.0)]
)
def test_cosine_decays_from_one_to_zero(step: int, value: float) -> None:
    assert Cosine(epochs=10, steps_per_epoch=10)(step) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("step", "value"), [(20, 1.0), (60, 0.6), (100, 0.2), (101, 0.2)])
def test_cosine_decays_to_its_end_after_the_warm_up(step: int, value: float) -> None:
    assert Cosine(epochs=10, steps_per_epoch=10, warmup_epochs=2, end=0.2)(step) == pytest.approx(value)


def test_cosine_warms_up_in_equal_steps_that_end_in_one_and_never_stand_still() -> None:
    values = [Cosine(epochs=10, steps_per_epoch=10, warmup_epochs=2)(step) for step in range(21)]
    assert values == pytest.approx([(step + 1) / 21 for step in range(21)])
    assert values[0] > 0  # a first batch at rate 0 would be thrown away


def test_cosine_falls_monotonically_after_the_warm_up() -> None:
    schedule = Cosine(epochs=10, steps_per_epoch=10, warmup_epochs=2)
    values = [schedule(step) for step in range(20, 101)]
    assert all(a > b for a, b in pairwise(values))


@pytest.mark.parametrize(("step", "value"), [(0, 1.0), (5, 0.5**0.5), (10, 0.5), (30, 0.125)])
def test_exponential_falls_by_its_rate_every_epoch(step: int, value: float) -> None:
    assert Exponential(rate=0.5, steps_per_epoch=10)(step) == pytest.approx(value)


@pytest.mark.parametrize(("step", "value"), [(0, 1.0), (19, 1.0), (20, 0.1), (39, 0.1), (40, 0.01), (200, 1e-10)])
def test_step_falls_by_its_rate_every_few_epochs(step: int, value: float) -> None:
    assert Step(rate=0.1, epochs=2, steps_per_epoch=10)(step) == pytest.approx(value)


@pytest.mark.parametrize("epochs", [0, -1, math.inf, math.nan])
def test_an_impossible_length_is_refused(epochs: float) -> None:
    message = f"epochs must be a number above 0, but is {epochs}"
    with pytest.raises(ValueError, match=message):
        Linear(epochs=epochs, steps_per_epoch=10)
    with pytest.raises(ValueError, match=message):
        Cosine(epochs=epochs, steps_per_epoch=10)
    with pytest.raises(ValueError, match=message):
        Step(rate=0.1, epochs=epochs, steps_per_epoch=10)


@pytest.mark.parametrize("rate", [0, -0.5, math.inf])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=f"rate must be a number above 0, but is {rate}"):
        Exponential(rate=rate, steps_per_epoch=10)
    with pytest.raises(ValueError, match=f"rate must be a number above 0, but is {rate}"):
        Step(rate=rate, epochs=2, steps_per_epoch=10)


def test_an_impossible_warm_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_epochs \(10\) must be below epochs \(10\)"):
        Cosine(epochs=10, steps_per_epoch=10, warmup_epochs=10)
    with pytest.raises(ValueError, match="warmup_epochs must be a number of at least 0, but is -1"):
        Cosine(epochs=10, steps_per_epoch=10, warmup_epochs=-1)
