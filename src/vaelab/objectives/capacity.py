"""Capacity annealing: a KL that is held at a value which rises while training."""

from __future__ import annotations

from torch import Tensor

from vaelab.checks import at_least_zero, positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.schedules import Constant, Schedule


class Capacity(Objective):
    """loss = -mean_B,K log p(x|z) + gamma * |mean_B,K KL(q(z|x) || p(z)) - C|, with C = capacity * w(step), in nats.

    (Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.) C is what the latents may say about an
    image of the batch on average. The logged `elbo` has the KL as it is, with weight 1.

    Args:
        capacity: final C, in nats per example.
        gamma: weight of the distance from C.
        schedule: w, a function of the number of batches seen.
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for a negative `capacity` or `gamma`, or a `num_samples` below 1.
    """

    def __init__(
        self,
        *,
        capacity: float = 25.0,
        gamma: float = 1000.0,
        schedule: Schedule | None = None,
        num_samples: int = 1,
    ) -> None:
        super().__init__()
        self.capacity = at_least_zero("capacity", capacity)
        self.gamma = at_least_zero("gamma", gamma)
        self.schedule = schedule or Constant()
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the `capacity` C that was in force."""
        capacity = self.capacity * self.schedule(step)
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        loss = self.gamma * (kl - capacity).abs() - log_px
        return loss, {**bound_logs(loss, log_px, kl), "capacity": capacity}
