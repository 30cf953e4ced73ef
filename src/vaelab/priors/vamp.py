"""Variational mixture of posteriors (Tomczak & Welling 2018, "VAE with a VampPrior")."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.checks import positive_int
from vaelab.distributions import Mixture
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class VampPrior(Prior):
    """p(z) = (1/C) sum_c q(z|u_c): the model's own posteriors of C learned pseudo-inputs u_c (section 3).

    u_c = low + (high - low) * sigmoid(a_c) with a_c free and drawn from N(0, 1) at the start: pseudo-inputs lie in the
    range of the data, and the encoder sees them as it sees data. Deviation from the paper: the sigmoid instead of a
    clipped linear map, which has no gradient where it clips. The KL of a posterior is estimated by
    log q(z|x) - log p(z) of the draws. Fits every sampler but those with a codebook.

    Pseudo-inputs are encoded as at evaluation, in training too: without dropout, and batch-normalised by the running
    statistics of the data, of which they are no part.

    Args:
        latent_shape: (D,) or (D, h, w).
        components: C.
        low: smallest value of the data.
        high: largest value of the data.

    Raises:
        ValueError: for `components` below 1, or a `high` that is not above `low`.
    """

    space = None
    pseudo_logits: nn.Parameter

    def __init__(
        self, *, latent_shape: Sequence[int], components: int = 500, low: float = 0.0, high: float = 1.0
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.components = positive_int("components", components)
        if not low < high:
            raise ValueError(f"high must be above low={low}, but is {high}")
        self.low, self.high = low, high
        self._posterior: Callable[[Tensor], Distribution] | None = None

    def attach(
        self, posterior: Callable[[Tensor], Distribution], x_shape: Sequence[int], sampler: nn.Module | None = None
    ) -> None:
        """Takes the posterior, which stays the model's own, and makes the pseudo-inputs."""
        self._posterior = posterior
        self.pseudo_logits = nn.Parameter(torch.randn(self.components, *x_shape))

    def check_space(self, space: str, remedy: str) -> None:
        """Raises a ValueError for a codebook: every posterior is one point of it, and no two would overlap."""
        if space == "a codebook":
            raise ValueError(f"VampPrior mixes posteriors that overlap, but those on {space} do not; choose {remedy}")

    @torch.enable_grad()
    def initialize(self, z: Tensor) -> None:
        """Raises a ValueError if the posteriors are those of a deterministic code, which have no density to fit."""
        if not self().log_prob(z[:1]).requires_grad:
            raise ValueError(
                "VampPrior mixes the densities of posteriors, but a deterministic code has none; choose "
                "model/prior=gaussian_mixture"
            )

    @property
    def pseudo_inputs(self) -> Tensor:
        """u, (C, *x_shape), in the range of the data."""
        return self.low + (self.high - self.low) * self.pseudo_logits.sigmoid()

    def forward(self) -> Mixture:
        """Returns the mixture, of event shape `latent_shape`.

        Raises:
            ValueError: if the prior does not belong to a model yet.
        """
        if self._posterior is None:
            raise ValueError("a VampPrior is made of its model's posteriors; call attach(posterior, x_shape) first")
        with evaluating(getattr(self._posterior, "__self__", None)):
            posteriors = self._posterior(self.pseudo_inputs)
        return Mixture(at_least_float32(self.pseudo_logits.new_zeros(self.components)), posteriors)


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Holds all modules of a model in evaluation mode inside the block; does nothing for what is no model."""
    training = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
