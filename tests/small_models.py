"""Models of a few dozen parameters, the same at every call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import build_vae
from vaelab.networks import Condition, MLPDecoder, MLPEncoder
from vaelab.priors import Prior, StandardNormalPrior
from vaelab.samplers import GaussianSampler, Sampler


def small_vae(
    sampler: Callable[..., Sampler] = GaussianSampler,
    prior: Callable[..., Prior] = StandardNormalPrior,
    *,
    condition: Condition | None = None,
    build: Callable[..., Any] = build_vae,
) -> Any:
    """Builds a model of binary 4x4 images with three latents, in evaluation mode."""
    torch.manual_seed(0)
    return build(
        x_shape=(1, 4, 4),
        latent_dim=3,
        encoder=partial(MLPEncoder, hidden=[8]),
        sampler=sampler,
        prior=prior,
        decoder=partial(MLPDecoder, hidden=[8]),
        likelihood=BernoulliLikelihood(),
        condition=condition,
    ).eval()
