"""The LightningModule of an adversarial objective: two players, each with its own optimizer settings."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from vaelab.objectives import Adversarial
from vaelab.training.module import VAEModule
from vaelab.training.muon import Muon


class AdversarialModule(VAEModule):
    """Trains a model, and the discriminator of its objective against it.

    Both players are parameter groups of one optimizer: an `Adversarial` objective keeps their gradients apart, and the
    rules of torch.optim treat every parameter by itself. What a batch, a step, a schedule, a checkpoint, an accumulated
    gradient, a precision or a device is stays what it is for any other objective.

    The discriminator's group has the optimizer's own options but for `objective.discriminator_optimizer`. A
    learning-rate schedule multiplies both rates. Gradients are clipped for each player by itself.

    Args:
        objective: adversarial.
        settings: as those of `VAEModule`.

    Raises:
        ValueError: for options that the optimizer does not have or allow.
    """

    objective: Adversarial

    def __init__(self, *, objective: Adversarial, **settings: Any) -> None:
        super().__init__(objective=objective, **settings)
        self._discriminator_group([Parameter(torch.zeros(1))])  # complain now, not when training starts

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the group of the model (and of what else the objective learns) and that of the discriminator."""
        discriminator = [p for p in self.objective.discriminator.parameters() if p.requires_grad]
        theirs = {id(p) for p in discriminator}
        model = [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]
        return [{"params": model}, self._discriminator_group(discriminator)]

    def _discriminator_group(self, parameters: list[Parameter]) -> dict[str, Any]:
        options = self.objective.discriminator_optimizer
        try:
            optimizer = self.make_optimizer(parameters, **options)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"discriminator_optimizer must hold options of the chosen optimizer, but is {options}: {error}"
            ) from error
        if isinstance(optimizer, Muon):
            raise ValueError(
                "an adversarial objective needs groups of parameters, which Muon does not take; choose optimizer=adam"
            )
        return optimizer.param_groups[0]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients of every player by itself: the size of one says nothing about the other."""
        if gradient_clip_val is None or gradient_clip_val <= 0:  # as for Lightning, 0 is no clipping
            return
        clip = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
        for group in optimizer.param_groups:
            clip(group["params"], gradient_clip_val)
