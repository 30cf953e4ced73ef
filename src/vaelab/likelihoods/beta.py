"""Beta likelihood, for grey values in [0, 1]."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Beta, Independent

from vaelab.likelihoods.base import scale_from
from vaelab.likelihoods.unit_interval import UnitIntervalLikelihood

MIN_SHAPE = 1e-3  # of both shape parameters


class BetaLikelihood(UnitIntervalLikelihood):
    """p(x|z) = prod_i (L - 1) / L * Beta(y_i; m_i phi_i, (1 - m_i) phi_i), y = (x (L - 1) + 1/2) / L.

    The decoder emits logit m and log phi for every value (P = 2): mean and precision of y (Ferrari & Cribari-Neto 2004,
    "Beta regression for modelling rates and proportions", equation 4). Deviations: x is squeezed into the open interval
    (see `UnitIntervalLikelihood`), and both shape parameters have 0.001 added, which keeps log p finite.

    Args:
        levels: L, the number of grey levels of the data; None, of floating-point data, counts as 256.

    Raises:
        ValueError: for fewer than two levels.
    """

    def forward(self, params: Tensor) -> Independent:
        """Maps mean logits and log precisions (B, 2 * C, H, W) to p(x|z)."""
        logits, log_precision = self.split(params)
        precision = scale_from(log_precision, floor=MIN_SHAPE)
        alpha = MIN_SHAPE + precision * logits.sigmoid()
        beta = MIN_SHAPE + precision * (-logits).sigmoid()
        return self.stretch(Beta(alpha, beta, validate_args=False))
