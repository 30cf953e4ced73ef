"""Sliced Wasserstein distance between the aggregate posterior and the prior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vaelab.checks import at_least_zero, positive_int
from vaelab.models.terms import Terms, sum_groups
from vaelab.objectives.base import Objective, bound_logs
from vaelab.objectives.mmd import prior_draws


class SWAE(Objective):
    """loss = -mean_B,K log p(x|z) + lambda_sw * SW_2^2(q(z), p(z)) (Kolouri et al. 2019, algorithm 1).

    The cost is -log p(x|z): the squared error up to a constant for a Gaussian of fixed scale. There is no KL. Latent
    groups are added. Only the posterior is moved towards the prior: a learned prior gets no gradient from it.

    Args:
        lambda_sw: weight of the squared distance.
        num_projections: L, random directions for every batch.
        num_samples: K, draws of z for every example; each is compared by itself.

    Raises:
        ValueError: for a negative `lambda_sw`, or a number below 1.
    """

    def __init__(self, *, lambda_sw: float = 10.0, num_projections: int = 50, num_samples: int = 1) -> None:
        super().__init__()
        self.lambda_sw = at_least_zero("lambda_sw", lambda_sw)
        self.num_projections = positive_int("num_projections", num_projections)
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the unweighted `sliced_wasserstein`, squared."""
        log_px = terms.log_px.mean()
        distance = sum_groups(
            [
                squared_sliced_wasserstein(latent.z.flatten(2), prior_draws(latent).flatten(2), self.num_projections)
                for latent in terms.latents
            ]
        )
        loss = self.lambda_sw * distance - log_px
        return loss, {**bound_logs(loss, log_px, terms.kl.mean()), "sliced_wasserstein": distance.detach()}


def squared_sliced_wasserstein(x: Tensor, y: Tensor, num_projections: int) -> Tensor:
    """Returns SW_2^2 between the draws x and y, each (K, B, D), averaged over K, ().

    The mean over random unit vectors u of W_2^2 between u . x and u . y, which in one dimension is the mean squared
    difference of the sorted values. For a shift by m it is |m|^2 / D.

    Args:
        x: draws of one distribution.
        y: draws of the other.
        num_projections: number of vectors u.
    """
    directions = normalize(torch.randn(x.shape[-1], num_projections, dtype=x.dtype, device=x.device), dim=0)
    return ((x @ directions).sort(1).values - (y @ directions).sort(1).values).square().mean()
