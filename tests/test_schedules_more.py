"""The S-shaped and the cyclical schedule, by their formulas."""

import math
from collections.abc import Callable

import pytest

from vaelab.schedules import Cyclical, Linear, Schedule, Sigmoid


def test_sigmoid_runs_from_start_to_end_exactly_and_stays_there() -> None:
    schedule = Sigmoid(epochs=4, steps_per_epoch=25, start=0.2, end=1.2)
    assert schedule(0) == pytest.approx(0.2, abs=1e-12)
    assert schedule(50) == pytest.approx(0.7)
    assert [schedule(step) for step in (100, 101, 10**6)] == pytest.approx([1.2, 1.2, 1.2], abs=1e-12)


def test_sigmoid_is_the_logistic_function_stretched_to_its_ends() -> None:
    def logistic(u: float) -> float:
        return 1 / (1 + math.exp(-u))

    schedule = Sigmoid(epochs=2, steps_per_epoch=50, steepness=8.0)
    for step in range(0, 101, 7):
        wanted = (logistic(8 * (step / 100 - 0.5)) - logistic(-4)) / (logistic(4) - logistic(-4))
        assert schedule(step) == pytest.approx(wanted)


def test_sigmoid_rises_slowly_at_the_ends_and_fast_in_the_middle() -> None:
    schedule = Sigmoid(epochs=1, steps_per_epoch=100)
    values = [schedule(step) for step in range(101)]
    assert values == sorted(values)
    assert values[10] < 0.05
    assert values[90] > 0.95
    assert values[51] - values[49] > 5 * (values[2] - values[0])


def test_a_sigmoid_that_is_hardly_steep_is_linear() -> None:
    sigmoid, linear = Sigmoid(epochs=1, steps_per_epoch=100, steepness=1e-3), Linear(epochs=1, steps_per_epoch=100)
    assert [sigmoid(step) for step in range(101)] == pytest.approx([linear(step) for step in range(101)], abs=1e-6)


def test_cyclical_has_four_cycles_half_of_each_a_ramp() -> None:
    schedule = Cyclical(epochs=4, steps_per_epoch=20)  # cycles of 20 steps
    for cycle in range(4):
        values = [schedule(20 * cycle + step) for step in range(20)]
        assert values == pytest.approx([step / 10 for step in range(10)] + [1.0] * 10)
    assert [schedule(step) for step in (80, 81, 10**6)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("ramp", [0.25, 1.0])
def test_cyclical_ramp_is_its_share_of_the_cycle(ramp: float) -> None:
    schedule = Cyclical(epochs=1, steps_per_epoch=60, cycles=3, ramp=ramp, start=-1.0, end=3.0)
    for step in range(60):
        position = step % 20 / 20
        assert schedule(step) == pytest.approx(-1.0 + 4.0 * min(1.0, position / ramp))


@pytest.mark.parametrize(("steps", "cycles"), [(7, 3), (49, 7), (1000, 13), (10, 20)])
def test_cycles_that_do_not_divide_the_steps_are_counted_without_rounding(steps: int, cycles: int) -> None:
    schedule = Cyclical(epochs=1, steps_per_epoch=steps, cycles=cycles, ramp=1.0)
    for step in range(steps):
        assert schedule(step) == pytest.approx(step * cycles % steps / steps, abs=1e-12)


def test_one_cycle_is_a_linear_ramp() -> None:
    cyclical = Cyclical(epochs=2.5, steps_per_epoch=10, cycles=1, ramp=1.0)
    linear = Linear(epochs=2.5, steps_per_epoch=10)
    assert [cyclical(step) for step in range(40)] == pytest.approx([linear(step) for step in range(40)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sigmoid(epochs=0, steps_per_epoch=10), "epochs must be a number above 0, but is 0"),
        (lambda: Sigmoid(epochs=1, steps_per_epoch=10, steepness=0), "steepness must be a number above 0, but is 0"),
        (lambda: Cyclical(epochs=-1, steps_per_epoch=10), "epochs must be a number above 0, but is -1"),
        (lambda: Cyclical(epochs=1, steps_per_epoch=10, cycles=0), "cycles must be a whole number of at least 1"),
        (lambda: Cyclical(epochs=1, steps_per_epoch=10, ramp=0.0), "ramp must be above 0 and at most 1, but is 0.0"),
        (lambda: Cyclical(epochs=1, steps_per_epoch=10, ramp=1.1), "ramp must be above 0 and at most 1, but is 1.1"),
    ],
)
def test_impossible_schedules_are_refused(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
