"""The variational Renyi bound."""

from __future__ import annotations

import math

from torch import Tensor

from vaelab.checks import positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective
from vaelab.objectives.estimators import log_mean_exp
from vaelab.objectives.iwae import importance_logs


class Renyi(Objective):
    """loss = -mean_B 1 / (1 - alpha) log (1/K) sum_k w_k^(1 - alpha), in nats (Li & Turner 2016, section 4.1).

    w = p(x, z) / q(z|x). alpha = 1 is the ELBO (the limit), alpha = 0 IWAE; a smaller alpha makes q cover more of the
    posterior. For alpha < 0 this is no lower bound of log p(x).

    Args:
        alpha: order of the divergence.
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for an infinite `alpha` or a `num_samples` below 1.
    """

    def __init__(self, *, alpha: float = 0.5, num_samples: int = 5) -> None:
        super().__init__()
        if not math.isfinite(alpha):
            raise ValueError(f"alpha must be a finite number, but is {alpha!r}")
        self.alpha = alpha
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the importance-weighted bound `iwae` of the same draws."""
        log_w, power = terms.log_weights, 1 - self.alpha
        bound = log_mean_exp(power * log_w, 0) / power if power else log_w
        loss = -bound.mean()
        return loss, importance_logs(loss, terms)
