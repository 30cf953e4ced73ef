"""What a model hands to an objective: log-probabilities in nats, never negated, never summed over the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions.kl import kl_divergence

from vaelab.samplers.codes import Quantized
from vaelab.samplers.deterministic import Delta

if TYPE_CHECKING:
    from vaelab.models.base import Model


@dataclass(frozen=True)
class Latent:
    """One group of latent variables: its posterior q, its prior p and K draws from q for each of B examples.

    Log-probabilities are computed on first use, so that an objective pays only for what it reads.
    """

    z: Tensor  # (K, B, *latent_shape)
    q: Distribution  # batch shape (B,) or (K, B)
    p: Distribution  # batch shape (), (B,) or (K, B)

    @cached_property
    def log_pz(self) -> Tensor:
        """log p(z) in nats, (K, B); of quantised latents it is that of the posterior's codes."""
        return -self.kl if isinstance(self.q, Quantized) else self.p.log_prob(self.z)

    @cached_property
    def log_qz(self) -> Tensor:
        """log q(z|x) in nats, (K, B)."""
        return self.q.log_prob(self.z)

    @cached_property
    def log_ratio(self) -> Tensor:
        """log p(z) - log q(z|x) in nats, (K, B); 0 for a deterministic code, which has no density."""
        return torch.zeros_like(self.log_pz) if isinstance(self.q, Delta) else self.log_pz - self.log_qz

    @cached_property
    def kl(self) -> Tensor:
        """KL(q(z|x) || p(z)) in nats, (K, B): in closed form where there is one, else log q(z|x) - log p(z)."""
        try:
            return kl_divergence(self.q, self.p).expand(self.z.shape[:2])
        except NotImplementedError:
            return -self.log_ratio

    @cached_property
    def kl_per_dim(self) -> Tensor | None:
        """KL of every latent dimension in nats, (B, *latent_shape), or None where q and p have no such closed form.

        Of a group that depends on the draws of another it is the mean over those draws.
        """
        if not (isinstance(self.q, Independent) and isinstance(self.p, Independent)):
            return None
        try:
            kl = kl_divergence(self.q.base_dist, self.p.base_dist)
            return kl.mean(0) if kl.ndim == self.z.ndim else kl
        except NotImplementedError:
            return None


@dataclass(frozen=True)
class Terms:
    """The terms of the evidence lower bound for K draws and B examples, in nats.

    Besides them, what only some objectives read: the data, the parameters that the decoder emitted and the model itself
    (to decode other latents, or to weigh its parameters).
    """

    log_px: Tensor  # (K, B): log p(x|z)
    latents: tuple[Latent, ...]
    penalties: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) or (): added to every loss
    metrics: Mapping[str, Tensor] = field(default_factory=dict)  # (B,) or (): only logged
    x: Tensor | None = None  # (B, C, H, W), what was scored
    context: Tensor | None = None  # (B, ...), what was given besides
    params: Tensor | None = None  # (K, B, P * C, H, W), of p(x|z)
    model: Model | None = field(default=None, repr=False)
    pool: Terms | None = field(default=None, repr=False)  # of all draws, if those here were resampled among them

    @cached_property
    def x_mean(self) -> Tensor:
        """The mean images E[x|z], (K, B, C, H, W), with their gradient.

        Raises:
            ValueError: if the terms come without a model.
        """
        return self.source.likelihood(self.params).mean

    @property
    def source(self) -> Model:
        """The model that the terms come from.

        Raises:
            ValueError: if they come without one.
        """
        if self.model is None or self.params is None or self.x is None:
            giver = "terms without their model do" if self.model is None else f"{type(self.model).__name__} does"
            raise ValueError(
                f"this objective reads x and the parameters of p(x|z), which {giver} not give; choose objective=elbo, "
                "or a model that decodes single draws (model=vae)"
            )
        return self.model

    @cached_property
    def kl(self) -> Tensor:
        """KL(q(z|x) || p(z)), summed over the latent groups, (K, B)."""
        return sum_groups([latent.kl for latent in self.latents])

    @cached_property
    def elbo(self) -> Tensor:
        """log p(x|z) - KL(q(z|x) || p(z)), (K, B): an unbiased estimate of the ELBO."""
        return self.log_px - self.kl

    @cached_property
    def log_weights(self) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x), (K, B): log importance weights."""
        return self.log_px + sum_groups([latent.log_ratio for latent in self.latents])

    @property
    def is_bound(self) -> bool:
        """Whether `elbo` bounds log p(x): false for a deterministic code, which has no density."""
        return not any(isinstance(latent.q, Delta) for latent in self.latents)


def sum_groups(values: list[Tensor]) -> Tensor:
    """Adds the (K, B) values of the latent groups."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
