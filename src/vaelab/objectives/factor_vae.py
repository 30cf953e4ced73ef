"""The total correlation of the aggregate posterior, estimated by a discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vaelab.checks import at_least_zero, positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.adversarial import Adversarial, frozen
from vaelab.objectives.base import bound_logs
from vaelab.objectives.estimators import only_latent


class FactorVAE(Adversarial):
    """loss = -ELBO + gamma * TC, TC = KL(q(z) || prod_j q(z_j)) ~ mean_B,K log D(z) / (1 - D(z)), in nats per example.

    (Kim & Mnih 2018, "Disentangling by factorising", equation 2 and algorithm 2.) D is the probability that z was drawn
    from the aggregate posterior q(z), and not with every dimension from another example. The discriminator learns from
    one half of the batch as it is and the other half permuted, so that its two kinds are independent; the paper has a
    second batch instead. Of an odd batch the middle example is in both halves.

    A latent map counts all its numbers as dimensions. Latents whose numbers depend on each other by construction
    (one-hot vectors, points of a sphere) have a total correlation that no model can lower.

    Args:
        discriminator: latents (B, D) -> logits (B,).
        gamma: weight of the total correlation.
        num_samples: K, draws of z for every example.
        discriminator_optimizer: options of the optimizer that are other for the discriminator than for the model.

    Raises:
        ValueError: for a negative `gamma` or a `num_samples` below 1; when called, for a hierarchy.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        gamma: float = 10.0,
        num_samples: int = 1,
        discriminator_optimizer: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(discriminator=discriminator, discriminator_optimizer=discriminator_optimizer)
        self.gamma = at_least_zero("gamma", gamma)
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the unweighted `total_correlation`."""
        z = only_latent(terms, "the total correlation").z
        tc = frozen(self.discriminator, z.flatten(2).flatten(0, 1)).mean()
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        loss = kl + self.gamma * tc - log_px
        return loss, {**bound_logs(loss, log_px, kl), "total_correlation": tc.detach()}

    def real_and_fake(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Returns draws of q(z) and of prod_j q(z_j), each (K * ceil(B / 2), D)."""
        z = only_latent(terms, "the total correlation").z.flatten(2)
        half = z.shape[1] // 2
        joint, others = z[:, : z.shape[1] - half], z[:, half:]
        return joint.flatten(0, 1), permuted(others).flatten(0, 1)


def permuted(z: Tensor) -> Tensor:
    """Returns z (K, B, D) with every dimension of every draw shuffled over the examples by itself (algorithm 1)."""
    return z.gather(1, torch.rand_like(z).argsort(1))
