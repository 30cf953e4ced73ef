"""The adversarial autoencoder: the aggregate posterior learns to look like the prior."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vaelab.checks import at_least_zero, positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.adversarial import Adversarial, fooling, frozen
from vaelab.objectives.base import bound_logs
from vaelab.objectives.estimators import only_latent
from vaelab.objectives.mmd import prior_draws


class AAE(Adversarial):
    """loss = mean_B,K [ -log p(x|z) - lambda_adv * log D(z) ], D the probability that z was drawn from the prior.

    (Makhzani et al. 2016, "Adversarial autoencoders", section 2; WAE-GAN of Tolstikhin et al. 2018, algorithm 1.) There
    is no KL. -log p(x|z) is the squared error up to a constant for a Gaussian of fixed scale. The paper takes turns
    between two optimizers for the encoder; here both terms are descended in one step.

    Only the posterior is moved towards the prior: a learned prior gets no gradient from it.

    Args:
        discriminator: latents (B, *latent_shape) -> logits (B,).
        lambda_adv: weight of the adversarial term.
        num_samples: K, draws of z for every example.
        discriminator_optimizer: options of the optimizer that are other for the discriminator than for the model.

    Raises:
        ValueError: for a negative `lambda_adv` or a `num_samples` below 1; when called, for a hierarchy.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        lambda_adv: float = 10.0,
        num_samples: int = 1,
        discriminator_optimizer: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(discriminator=discriminator, discriminator_optimizer=discriminator_optimizer)
        self.lambda_adv = at_least_zero("lambda_adv", lambda_adv)
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the unweighted `adversarial` term, -E[log D(z)]."""
        z = only_latent(terms, "an adversarial autoencoder").z
        adversarial = fooling(frozen(self.discriminator, z.flatten(0, 1)))
        log_px = terms.log_px.mean()
        loss = self.lambda_adv * adversarial - log_px
        return loss, {**bound_logs(loss, log_px, terms.kl.mean()), "adversarial": adversarial.detach()}

    def real_and_fake(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Returns draws of p(z) and of q(z), each (K * B, *latent_shape)."""
        latent = only_latent(terms, "an adversarial autoencoder")
        return prior_draws(latent).flatten(0, 1), latent.z.flatten(0, 1)
