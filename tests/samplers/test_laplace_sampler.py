"""The Laplace posterior."""

import math

import pytest
import torch
from torch.distributions import kl_divergence

from vaelab.models import Latent
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import LaplaceSampler


def test_what_the_network_emits_is_the_location_and_the_log_of_the_scale() -> None:
    torch.manual_seed(0)
    sampler = LaplaceSampler(in_shape=(5,), latent_shape=(2,)).double()
    features = torch.randn(3, 5, dtype=torch.float64)
    mu, b = sampler.mean(features), sampler.log_scale(features).exp()
    z = torch.randn(4, 3, 2, dtype=torch.float64)
    expected = (-(z - mu).abs() / b - (2 * b).log()).sum(-1)
    q = sampler(features)
    torch.testing.assert_close(q.log_prob(z), expected)
    torch.testing.assert_close(q.stddev, math.sqrt(2) * b)


def test_kl_to_the_standard_normal_is_the_integral() -> None:
    torch.manual_seed(0)
    q = LaplaceSampler(in_shape=(5,), latent_shape=(1,)).double()(3 * torch.randn(1, 5, dtype=torch.float64))
    p = StandardNormalPrior(latent_shape=(1,)).double()()
    z = torch.linspace(-60, 60, 200_001, dtype=torch.float64).view(-1, 1, 1)
    log_q = q.log_prob(z)
    integral = torch.trapezoid((log_q.exp() * (log_q - p.log_prob(z))).squeeze(), z.squeeze())
    assert kl_divergence(q, p).item() == pytest.approx(integral.item(), abs=1e-5)


def test_kl_falls_apart_into_dimensions() -> None:
    torch.manual_seed(0)
    q = LaplaceSampler(in_shape=(5, 2, 2), latent_shape=(3, 2, 2))(torch.randn(4, 5, 2, 2))
    latent = Latent(z=q.rsample((2,)), q=q, p=StandardNormalPrior(latent_shape=(3, 2, 2))())
    assert latent.kl_per_dim.shape == (4, 3, 2, 2)
    torch.testing.assert_close(latent.kl_per_dim.flatten(1).sum(1), latent.kl[0])
