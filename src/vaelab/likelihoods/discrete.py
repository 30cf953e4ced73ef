"""What the likelihoods of grey levels share."""

from __future__ import annotations

from torch import Tensor

from vaelab.checks import positive_int
from vaelab.likelihoods.base import Likelihood
from vaelab.numerics import at_least_float32


class DiscreteLikelihood(Likelihood):
    """P(x|z) of grey levels x = k / (L - 1), k = 0 ... L - 1: the probabilities of the L levels sum to one.

    Args:
        levels: L, the number of grey levels of the data (256 for 8 bits).

    Raises:
        ValueError: for floating-point data (None) or fewer than two levels.
    """

    supports = ("binary", "levels")
    probability_of = ("binary", "levels")
    remedy = (
        "use data.binarize=threshold, or a density: model/likelihood=gaussian for any numbers, "
        "model/likelihood=continuous_bernoulli for numbers in [0, 1]"
    )

    def __init__(self, *, levels: int | None) -> None:
        super().__init__()
        if levels is None:
            raise ValueError(
                f"levels must be the number of grey levels, but is None: floating-point data has none; {self.remedy}"
            )
        if positive_int("levels", levels) < 2:
            raise ValueError(f"levels must be at least 2, but is {levels}")
        self.levels = levels

    def check_support(self, support: str, levels: int | None = None) -> None:
        """Raises a ValueError if the data is of another kind, or has another number of grey levels."""
        super().check_support(support)
        if levels is not None and levels != self.levels:
            raise ValueError(
                f"levels is {self.levels}, but this data has {levels} grey levels; use levels={levels} "
                "(levels=${derived.levels} in a configuration)"
            )


def level_of(x: Tensor, levels: int) -> Tensor:
    """Returns k = (L - 1) x, rounded, as floating point: the grey level of every value, whatever the precision of x."""
    return (at_least_float32(x) * (levels - 1)).round()
