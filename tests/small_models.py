"""Models of a few dozen parameters, the same at every call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from vaelab.likelihoods import BernoulliLikelihood, Likelihood
from vaelab.models import build_vae
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.priors import Prior, StandardNormalPrior
from vaelab.samplers import GaussianSampler, Sampler


def small_vae(
    sampler: Callable[..., Sampler] = GaussianSampler,
    prior: Callable[..., Prior] = StandardNormalPrior,
    *,
    x_shape: tuple[int, int, int] = (1, 4, 4),
    latent_dim: int = 3,
    likelihood: Likelihood | None = None,
    build: Callable[..., Any] = build_vae,
    **options: Any,
) -> Any:
    """Builds a model with one hidden layer of eight units, in evaluation mode; its likelihood is a Bernoulli's."""
    torch.manual_seed(0)
    return build(
        x_shape=x_shape,
        latent_dim=latent_dim,
        encoder=partial(MLPEncoder, hidden=[8]),
        sampler=sampler,
        prior=prior,
        decoder=partial(MLPDecoder, hidden=[8]),
        likelihood=likelihood or BernoulliLikelihood(),
        **options,
    ).eval()
