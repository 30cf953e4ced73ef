"""Categorical prior: one-hot vectors, or their relaxation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaelab.checks import positive, positive_int
from vaelab.distributions import ChannelsFirst, OneHot, RelaxedOneHot
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class CategoricalPrior(Prior):
    """p(z) = prod_j Cat(z_j; pi_j): D / n independent variables z_j of n classes, one-hot, side by side.

    pi is uniform (Jang, Gu & Poole 2017, section 4), or `learned` from there. With a `temperature` every z_j is a draw
    from the Concrete density with that temperature, for relaxed posteriors (Maddison, Mnih & Teh 2017, appendix C).

    Args:
        latent_shape: (D,) or (D, h, w) with D a multiple of `classes`; a map has D / n variables at every position.
        classes: n.
        temperature: None for one-hot vectors.
        learned: whether the probabilities are learned.

    Raises:
        ValueError: if the classes do not divide D, or for a temperature that is not above 0.
    """

    logits: Tensor

    def __init__(
        self,
        *,
        latent_shape: Sequence[int],
        classes: int = 10,
        temperature: float | None = None,
        learned: bool = False,
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.temperature = None if temperature is None else positive("temperature", temperature)
        size, *positions = latent_shape
        if positive_int("classes", classes) < 2 or size % classes:
            raise ValueError(f"classes must be at least 2 and divide latent_dim={size}, but is {classes}")
        kind = "one-hot vectors" if temperature is None else "the simplices"
        self.space = f"{kind} of {classes} classes"
        hard = "true" if temperature is None else "false"
        self.remedy = f"model/sampler=categorical model.sampler.classes={classes} model.sampler.straight_through={hard}"
        logits = torch.zeros(*positions, size // classes, classes)
        if learned:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits, persistent=False)

    def forward(self) -> ChannelsFirst:
        """Returns the distribution of all variables, of event shape `latent_shape`."""
        logits = at_least_float32(self.logits)
        variables: Distribution
        if self.temperature is None:
            variables = OneHot(logits)
        else:
            variables = RelaxedOneHot(self.temperature, logits)
        return ChannelsFirst(Independent(variables, len(self.latent_shape), validate_args=False), parts=2)
