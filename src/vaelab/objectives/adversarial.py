"""Objectives with a second player: a discriminator that learns while the model learns against it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective


class Adversarial(Objective):
    """loss = L(model, sg(discriminator)) + L_D(discriminator, sg(model)) - sg(L_D), with sg the stopped gradient.

    The value is the model's loss L (and the logs call it `loss`); the gradient is that of L for the model and that of
    the discriminator's loss L_D for the discriminator. Neither player moves the other's parameters, so that one
    backward pass and one optimizer over all of them descend both losses at once, by the discriminator as it was
    before the step (Goodfellow et al. 2014; Kim & Mnih 2018, algorithm 2).

    An objective of one's own is `weigh`, which calls the discriminator through `frozen`, and `real_and_fake`.

    Args:
        discriminator: what it looks at, (B, ...), -> logits (B,), positive for what is real.
        discriminator_optimizer: options of the optimizer that are other for the discriminator than for the model.

    Attributes:
        discriminator: the second player.
        discriminator_optimizer: for whoever builds the optimizer.
    """

    def __init__(self, *, discriminator: nn.Module, discriminator_optimizer: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer or {}

    def forward(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, with the discriminator's gradient besides the model's, and the logs of both."""
        loss, logs = super().forward(terms, step)
        of_discriminator, more = self.discriminate(terms, step)
        return loss + (of_discriminator - of_discriminator.detach()), {**logs, **more}

    def discriminate(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the discriminator's loss L_D, (), and its logs; no gradient reaches the model.

        L_D = -(E_real[log D] + E_fake[log(1 - D)]) / 2, in nats: log 2 = 0.69 for one that cannot tell them apart.
        `discriminator_accuracy` is the share that it does, the mean over the two kinds.
        """
        real, fake = (
            self.discriminator(as_weights(self.discriminator, examples.detach()))
            for examples in self.real_and_fake(terms)
        )
        loss = (softplus(-real).mean() + softplus(fake).mean()) / 2
        accuracy = ((real > 0).float().mean() + (fake <= 0).float().mean()) / 2
        return loss, {"discriminator_loss": loss.detach(), "discriminator_accuracy": accuracy}

    def real_and_fake(self, terms: Terms) -> tuple[Tensor, Tensor]:
        """Returns what the discriminator is to tell apart, (N, ...) and (M, ...); their gradient is not used."""
        raise NotImplementedError


def frozen(network: nn.Module, x: Tensor) -> Tensor:
    """Returns network(x) with a gradient to x, but none to the network's parameters."""
    weights = {name: p.detach() for name, p in network.named_parameters()}
    return functional_call(network, weights, (as_weights(network, x),))


def as_weights(network: nn.Module, x: Tensor) -> Tensor:
    """Returns x in the floating-point type of the network's parameters, which may have half the precision."""
    return x.to(next(network.parameters()).dtype)


def fooling(logits: Tensor) -> Tensor:
    """Returns -E[log D] of the fakes' logits, (): the non-saturating loss (Goodfellow et al. 2014, section 3)."""
    return softplus(-logits).mean()
