"""DIP-VAE: an aggregate posterior with the covariance of the prior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.checks import at_least_zero, one_of, positive_int
from vaelab.models.terms import Terms, sum_groups
from vaelab.objectives.base import Objective, bound_logs


class DIPVAE(Objective):
    """loss = -mean_B,K ELBO + lambda_od * sum_i!=j C_ij^2 + lambda_d * sum_i (C_ii - 1)^2.

    (Kumar, Sattigeri & Balakrishnan 2018, equations 6 and 7.) Over the batch, C = Cov[E_q[z|x]] for variant i, and
    C = Cov[E_q[z|x]] + E[Cov_q[z|x]], the covariance of the aggregate posterior, for variant ii. The target 1 is the
    variance of a standard normal prior. Latent groups are treated one by one and added.

    Args:
        variant: i or ii.
        lambda_od: weight of the covariances.
        lambda_d: weight of the variances' distance from 1; the paper takes 10 * lambda_od for i, lambda_od for ii.
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for an unknown `variant`, a negative weight or a `num_samples` below 1.
    """

    def __init__(
        self, *, variant: str = "ii", lambda_od: float = 10.0, lambda_d: float = 10.0, num_samples: int = 1
    ) -> None:
        super().__init__()
        self.variant = one_of("variant", variant, ("i", "ii"))
        self.lambda_od = at_least_zero("lambda_od", lambda_od)
        self.lambda_d = at_least_zero("lambda_d", lambda_d)
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the unweighted penalties `dip_off_diagonal` and `dip_diagonal`."""
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        matrices = [covariance(latent.q, within=self.variant == "ii") for latent in terms.latents]
        diagonal = sum_groups([(c.diagonal() - 1).square().sum() for c in matrices])
        off_diagonal = sum_groups([c.square().sum() - c.diagonal().square().sum() for c in matrices])
        loss = kl - log_px + self.lambda_od * off_diagonal + self.lambda_d * diagonal
        logs = {"dip_off_diagonal": off_diagonal.detach(), "dip_diagonal": diagonal.detach()}
        return loss, {**bound_logs(loss, log_px, kl), **logs}


def covariance(q: Distribution, *, within: bool) -> Tensor:
    """Returns the covariance over the batch of the posterior means, divided by B, (D, D).

    Args:
        q: posteriors of the batch.
        within: add the mean over the batch of the posterior variances to the diagonal.

    Raises:
        ValueError: for a posterior whose variance is not known, as that of a flow.
    """
    mean = q.mean.reshape(-1, q.event_shape.numel())
    centred = mean - mean.mean(0)
    between = centred.T @ centred / len(mean)
    if not within:
        return between
    try:
        return between + torch.diag(q.variance.reshape_as(mean).mean(0))
    except NotImplementedError:
        raise ValueError(f"variant must be i for a {type(q).__name__} posterior, whose variance is not known") from None
