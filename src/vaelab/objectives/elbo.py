"""The evidence lower bound with a weight on the KL."""

from __future__ import annotations

from torch import Tensor

from vaelab.checks import at_least_zero, one_of, positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.objectives.estimators import log_ratio
from vaelab.schedules import Constant, Schedule


class ELBO(Objective):
    """loss = -mean_B,K [ log p(x|z) - beta * w(step) * KL(q(z|x) || p(z)) ], in nats per example.

    beta = 1 is the VAE (Kingma & Welling 2014), beta > 1 the beta-VAE (Higgins et al. 2017, equation 4), and a
    schedule w that rises from 0 to 1 is KL warm-up (Bowman et al. 2016; Sonderby et al. 2016). Whatever the weight, the
    logged `elbo` is the bound with weight 1.

    Args:
        beta: final weight of the KL.
        schedule: w, a function of the number of batches seen.
        num_samples: K, draws of z for every example.
        estimator: of the gradient: standard (of the KL in closed form, where there is one) or stl (of a sampled KL,
            without the score of q: Roeder, Wu & Duvenaud 2017, "Sticking the landing").

    Raises:
        ValueError: for a negative `beta`, a `num_samples` below 1 or an unknown `estimator`; when called, if stl meets
            a hierarchy, a deterministic code or a posterior that cannot be detached.
    """

    def __init__(
        self,
        *,
        beta: float = 1.0,
        schedule: Schedule | None = None,
        num_samples: int = 1,
        estimator: str = "standard",
    ) -> None:
        super().__init__()
        self.beta = at_least_zero("beta", beta)
        self.schedule = schedule or Constant()
        self.num_samples = positive_int("num_samples", num_samples)
        self.estimator = one_of("estimator", estimator, ("standard", "stl"))

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the weighted loss, and the logs with the weight `beta` that was in force."""
        beta = self.beta * self.schedule(step)
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        weighed = -log_ratio(terms, "stl").mean() if self.estimator == "stl" else kl
        loss = beta * weighed - log_px
        return loss, {**bound_logs(loss, log_px, kl), "beta": beta}
