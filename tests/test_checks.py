"""One-sentence refusals: what passes comes back unchanged, what does not is named."""

import math
from collections.abc import Callable

import pytest

from vaelab import checks


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.positive_int, 1),
        (checks.positive_int, 10**9),
        (checks.positive, 1e-300),
        (checks.positive, 3),
        (checks.at_least_zero, 0),
        (checks.at_least_zero, 2.5),
        (checks.fraction, 0.0),
        (checks.fraction, 0.999),
    ],
)
def test_a_good_number_is_returned(check: Callable[[str, float], float], value: float) -> None:
    assert check("lr", value) == value
    assert type(check("lr", value)) is type(value)


@pytest.mark.parametrize(
    ("check", "values", "message"),
    [
        (checks.positive_int, [0, -1, 1.0, 1.5, True, "3", None, math.nan], "must be a whole number of at least 1"),
        (checks.positive, [0, -1e-9, math.nan, math.inf, -math.inf], "must be a number above 0"),
        (checks.at_least_zero, [-1e-9, math.nan, math.inf, -math.inf], "must be a number of at least 0"),
        (checks.fraction, [1, 1.0, -1e-9, math.nan, math.inf], r"must lie in \[0, 1\)"),
    ],
)
def test_a_bad_number_is_refused_by_name_and_value(
    check: Callable[[str, object], object], values: list[object], message: str
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^optimizer.lr {message}, but is {value!r}$"):
            check("optimizer.lr", value)


def test_whole_numbers_come_back_as_a_list() -> None:
    assert checks.positive_ints("channels", (32, 64)) == [32, 64]
    assert checks.positive_ints("channels", []) == []


def test_the_bad_entry_of_a_list_is_named() -> None:
    with pytest.raises(ValueError, match=r"channels\[1\] must be a whole number of at least 1, but is 0"):
        checks.positive_ints("channels", [32, 0, 64])


def test_an_image_shape_comes_back_as_a_tuple() -> None:
    assert checks.image_shape("x_shape", [3, 27, 31]) == (3, 27, 31)


@pytest.mark.parametrize("shape", [(), (28,), (28, 28), (1, 1, 28, 28)])
def test_a_shape_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x_shape must be \(channels, height, width\), but is \("):
        checks.image_shape("x_shape", shape)


def test_an_empty_side_of_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x_shape\[2\] must be a whole number of at least 1, but is 0"):
        checks.image_shape("x_shape", (1, 28, 0))


def test_one_of_lists_the_choices_and_guesses_the_nearest() -> None:
    assert checks.one_of("norm", "batch", ["none", "batch"]) == "batch"
    with pytest.raises(ValueError, match=r"^norm must be one of none, batch, but is 'bacth'; did you mean 'batch'\?$"):
        checks.one_of("norm", "bacth", ["none", "batch"])
    with pytest.raises(ValueError, match=r"^norm must be one of none, batch, but is 'xyz'$"):
        checks.one_of("norm", "xyz", ["none", "batch"])


def test_did_you_mean_suggests_only_what_is_near() -> None:
    assert checks.did_you_mean("encodr", ["decoder", "encoder"]) == "; did you mean 'encoder'?"
    assert checks.did_you_mean("xyz", ["decoder", "encoder"]) == ""
    assert checks.did_you_mean("encoder", []) == ""
