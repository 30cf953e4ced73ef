"""What the densities of the open interval (0, 1) share: a place for grey values of exactly 0 and 1."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import AffineTransform, Distribution, Independent, TransformedDistribution

from vaelab.checks import positive_int
from vaelab.likelihoods.base import UNIT_REMEDY, Likelihood


class Stretched(TransformedDistribution):
    """The distribution of x = (L y - 1/2) / (L - 1), for y in (0, 1): see `UnitIntervalLikelihood`."""

    def __init__(self, y: Distribution, levels: int) -> None:
        step = 1 / (levels - 1)
        super().__init__(y, AffineTransform(-step / 2, 1 + step), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x], from E[y]."""
        return self.transforms[0](self.base_dist.mean)


class UnitIntervalLikelihood(Likelihood):
    """p(x|z) = prod_i (L - 1) / L * f(y_i), y = (x (L - 1) + 1/2) / L, for a density f on the open interval (0, 1).

    Such densities may be 0 or infinite at 0 and 1, where grey values often lie. So x is squeezed: the level
    k / (L - 1) goes to (k + 1/2) / L, the midpoint of its bin (Smithson & Verkuilen 2006, "A better lemon squeezer?",
    do so with the sample size in the place of L). The factor (L - 1) / L makes the result a density of the data x
    itself on the union of the L bins: it integrates to one over [-h/2, 1 + h/2], with h = 1 / (L - 1). So mean and
    samples may lie up to half a level outside [0, 1].

    Args:
        levels: L, the number of grey levels of the data; None, of floating-point data, counts as 256.

    Raises:
        ValueError: for fewer than two levels.
    """

    supports = ("binary", "levels", "unit")
    remedy = UNIT_REMEDY
    params_per_channel = 2

    def __init__(self, *, levels: int | None = None) -> None:
        super().__init__()
        self.levels = 256 if levels is None else positive_int("levels", levels)
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2, but is {levels}")

    def stretch(self, y: Distribution) -> Independent:
        """Returns p(x|z) of event shape (C, H, W) for the distribution of y, of batch shape (..., C, H, W)."""
        return Independent(Stretched(y, self.levels), 3, validate_args=False)
