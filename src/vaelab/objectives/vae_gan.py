"""The VAE-GAN: images are compared as a discriminator sees them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.checks import positive, positive_int
from vaelab.models.terms import Terms
from vaelab.networks import Discriminator
from vaelab.numerics import at_least_float32
from vaelab.objectives.adversarial import Adversarial, fooling, frozen
from vaelab.objectives.base import bound_logs
from vaelab.objectives.estimators import only_latent
from vaelab.objectives.perceptual import log_px_of_likelihood_alone


class VAEGAN(Adversarial):
    """loss = KL - mean_B,K log N(f(x); f(x~), I) + G / gamma, with x~ = E[x|z] and f the discriminator's features.

    (Larsen et al. 2016, "Autoencoding beyond pixels using a learned similarity metric", algorithm 1.) The images made
    are the reconstructions x~ and x_p = E[x|z_p] with z_p from the prior; G = -E[log D] of both together. The gradient
    of G goes to the decoder only, so that the encoder descends KL - log N and the decoder gamma * (-log N) + G, divided
    by gamma (which Adam and RMSprop do not notice). The discriminator learns to tell x from x~ and x_p, and nothing
    from the similarity, which it could only make trivial.

    Two deviations from the paper: G is non-saturating instead of log(1 - D), and the discriminator weighs real images
    as much as both kinds of made ones together.

    The logged `elbo` is the true bound, of log p(x|z) itself; it is not what is optimised, and val/elbo judges by
    pixels what is trained by features.

    Args:
        discriminator: images (B, C, H, W) -> logits (B,), with `features` and `head`.
        gamma: weight of the similarity against the adversary in the decoder.
        num_samples: K, draws of z for every example.
        discriminator_optimizer: options of the optimizer that are other for the discriminator than for the model.

    Raises:
        ValueError: for a `gamma` that is not above 0 or a `num_samples` below 1; when called, for a hierarchy, or
            terms without their model.
    """

    discriminator: Discriminator

    def __init__(
        self,
        *,
        discriminator: Discriminator,
        gamma: float = 1.0,
        num_samples: int = 1,
        discriminator_optimizer: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(discriminator=discriminator, discriminator_optimizer=discriminator_optimizer)
        self.gamma = positive("gamma", gamma)
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with `similarity`, log N(f(x); f(x~), I) in nats, and `adversarial`, G."""
        z = only_latent(terms, "a VAE-GAN").z
        model, x = terms.source, terms.x
        assert x is not None  # `source` has checked it
        seen, seen_again = (
            at_least_float32(frozen(self.discriminator.features, images)) for images in (x, terms.x_mean.flatten(0, 1))
        )
        similarity = Independent(Normal(seen_again.unflatten(0, z.shape[:2]), 1.0), 1).log_prob(seen).mean()
        made = images_of(terms, torch.cat([z.detach().flatten(0, 1), drawn(terms)]))
        adversarial = fooling(frozen(self.discriminator, made))
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        loss = kl - similarity + adversarial / self.gamma
        # What only the likelihood itself can learn, such as a scale, has no gradient from images.
        loss = loss - log_px_of_likelihood_alone(terms, model.likelihood)
        logs = {"similarity": similarity.detach(), "adversarial": adversarial.detach()}
        return loss, {**bound_logs(loss, log_px, kl), **logs}

    def real_and_fake(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Returns the data (B, C, H, W), and reconstructions and images from the prior ((K + 1) * B, C, H, W)."""
        again = terms.x_mean.flatten(0, 1)
        assert terms.x is not None  # `x_mean` has checked it
        with torch.no_grad():
            return terms.x, torch.cat([again, images_of(terms, drawn(terms))])


@torch.no_grad()
def drawn(terms: Terms) -> Tensor:
    """Draws z from the prior for every example, without gradient, (B, *latent_shape)."""
    return terms.source.draw_latents(terms.log_px.shape[1], terms.context)


def images_of(terms: Terms, z: Tensor) -> Tensor:
    """Returns E[x|z] for z (N * B, *latent_shape), each B of them with the context of the batch, (N * B, C, H, W)."""
    context = terms.context
    if context is not None:
        context = context.repeat(len(z) // len(context), *[1] * (context.ndim - 1))
    return terms.source.p_x(z, context).mean
