"""One-sentence refusals of bad values, shared by every room."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` for the nearest of `choices`, or an empty string when none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def positive_int(name: str, value: int) -> int:
    """Returns `value` if it is an integer of at least 1, else raises a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, but is {value!r}")
    return value


def is_number(value: object) -> bool:
    """Whether `value` is a finite number; True and "1e-3" are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def positive(name: str, value: float) -> float:
    """Returns `value` if it is a finite number above 0, else raises a ValueError that names it."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0, but is {value!r}")
    return value


def at_least_zero(name: str, value: float) -> float:
    """Returns `value` if it is a finite number of at least 0, else raises a ValueError that names it."""
    if not is_number(value) or value < 0:
        raise ValueError(f"{name} must be a number of at least 0, but is {value!r}")
    return value


def fraction(name: str, value: float) -> float:
    """Returns `value` if it lies in [0, 1), else raises a ValueError that names it."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), but is {value!r}")
    return value


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """Returns `value` if it is one of `choices`, else raises a ValueError that lists them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but is {value!r}{did_you_mean(value, choices)}")
    return value


def positive_ints(name: str, values: Sequence[int]) -> list[int]:
    """Returns `values` as a list if every entry is an integer of at least 1, else raises a ValueError."""
    return [positive_int(f"{name}[{i}]", v) for i, v in enumerate(_sequence(name, values))]


def image_shape(name: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns `shape` as (channels, height, width), else raises a ValueError."""
    if len(_sequence(name, shape)) != 3:
        raise ValueError(f"{name} must be (channels, height, width), but is {tuple(shape)}")
    channels, height, width = positive_ints(name, list(shape))
    return channels, height, width


def _sequence(name: str, values: Sequence[int]) -> Sequence[int]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a list of whole numbers, but is {values!r}")
    return values
