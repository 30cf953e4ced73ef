"""A prior fitted to the codes of a finished model."""

from __future__ import annotations

from torch import Tensor

from vaelab.models.terms import Terms, sum_groups
from vaelab.objectives.base import Objective, bound_logs


class PriorLikelihood(Objective):
    """loss = -mean_B,K log p(z) with z ~ q(z|x), in nats per example, of all latent groups.

    With everything but the prior kept as it is, log p(z) is greatest where p(z) is closest to the aggregate posterior:
    ex-post density estimation for a deterministic code (Ghosh et al. 2020, section 4), the second stage of a quantised
    model (van den Oord et al. 2017, section 3.3), and the best prior in the ELBO for any other. Logged is `log_prior`,
    the mean log p(z) in nats; of a deterministic code it is a log-density, without a bound on log p(x).
    """

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs."""
        log_prior = sum_groups([latent.log_pz for latent in terms.latents]).mean()
        logs = bound_logs(-log_prior, terms.log_px.mean(), terms.kl.mean())
        return -log_prior, {**logs, "log_prior": log_prior.detach()}
