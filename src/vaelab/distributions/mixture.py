"""Mixtures that can be drawn from without drawing from every component."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from vaelab.distributions.gaussian import log_prob_of_each


class Mixture(MixtureSameFamily):
    """p(z) = sum_c pi_c p_c(z).

    Args:
        logits: log pi_c up to a constant, (C,).
        components: p_c, batch shape (C,).
    """

    def __init__(self, logits: Tensor, components: Distribution) -> None:
        super().__init__(Categorical(logits=logits, validate_args=False), components, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, *event): first how many from every component, then those, in random order."""
        shape = torch.Size(sample_shape)
        choices = self.mixture_distribution.sample((shape.numel(),))
        counts = torch.bincount(choices, minlength=self.component_distribution.batch_shape[0])  # (C,)
        with torch.no_grad():
            draws = self.component_distribution.sample((int(counts.max()),))  # (M, C, *event)
        wanted = torch.arange(len(draws), device=counts.device).unsqueeze(1) < counts  # (M, C)
        order = torch.randperm(shape.numel(), device=counts.device)
        return draws[wanted][order].reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (...,), for z (..., *event)."""
        return (self._log_prob_of_each(value) + self.mixture_distribution.logits).logsumexp(-1)

    def responsibilities(self, z: Tensor) -> Tensor:
        """Returns p(c|z) = pi_c p_c(z) / p(z), (..., C), for z (..., *event)."""
        return (self._log_prob_of_each(z) + self.mixture_distribution.logits).softmax(-1)

    def _log_prob_of_each(self, z: Tensor) -> Tensor:
        """Returns log p_c(z), (..., C)."""
        parts = self.component_distribution
        if isinstance(parts, Independent) and isinstance(parts.base_dist, Normal) and z.device.type != "mps":
            return log_prob_of_each(parts, z)  # in float64, which that device does not have
        found: Tensor = parts.log_prob(self._pad(z))
        return found
