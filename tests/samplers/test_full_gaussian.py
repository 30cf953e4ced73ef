"""The full-covariance Gaussian posterior."""

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaelab.priors import GaussianMixturePrior, StandardNormalPrior
from vaelab.samplers import FullGaussianSampler
from vaelab.samplers.full_gaussian import FullGaussian


def posterior(dim: int = 4) -> FullGaussian:
    torch.manual_seed(0)
    return FullGaussianSampler(in_shape=(5,), latent_shape=(dim,)).double()(2 * torch.randn(3, 5, dtype=torch.float64))


def test_covariance_is_full_and_that_of_the_draws() -> None:
    q = posterior()
    covariance = q.scale_tril @ q.scale_tril.mT
    assert (covariance.tril(-1).abs() > 1e-3).any()
    z = q.sample((40_000,))
    for b in range(3):
        torch.testing.assert_close(z[:, b].T.cov(), covariance[b], atol=0.05, rtol=0.05)


def test_kl_to_a_diagonal_gaussian_is_torchs_between_full_ones() -> None:
    q = posterior()
    loc, scale = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
    p = Independent(Normal(loc, scale), 1)
    expected = kl_divergence(
        MultivariateNormal(q.loc, scale_tril=q.scale_tril), MultivariateNormal(loc, scale_tril=scale.diag())
    )
    torch.testing.assert_close(kl_divergence(q, p), expected)


def test_without_correlation_it_is_the_diagonal_gaussian() -> None:
    sampler = FullGaussianSampler(in_shape=(5,), latent_shape=(4,))
    for parameter in sampler.lower.parameters():
        torch.nn.init.zeros_(parameter)
    q = sampler(torch.randn(3, 5))
    diagonal = Independent(Normal(q.mean, q.stddev), 1)
    z = torch.randn(2, 3, 4)
    torch.testing.assert_close(q.log_prob(z), diagonal.log_prob(z))
    p = StandardNormalPrior(latent_shape=(4,))()
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(diagonal, p))


def test_one_dimension_is_a_gaussian() -> None:
    q = posterior(1)
    z = torch.linspace(-1, 1, 5, dtype=torch.float64).view(5, 1, 1)
    torch.testing.assert_close(q.log_prob(z), Normal(q.mean, q.stddev).log_prob(z).squeeze(-1))


def test_density_integrates_to_one() -> None:
    q = posterior(2)
    axis = torch.linspace(-30, 30, 601, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).unsqueeze(2)  # (401, 401, 1, 2)
    total = torch.trapezoid(torch.trapezoid(q.log_prob(z).exp(), axis, dim=0), axis, dim=0)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_kl_to_anything_but_a_diagonal_gaussian_has_no_closed_form() -> None:
    with pytest.raises(NotImplementedError):
        kl_divergence(posterior(), GaussianMixturePrior(latent_shape=(4,))())


def test_latent_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"latent map of shape \(4, 2, 2\).*model\.latent_map=false"):
        FullGaussianSampler(in_shape=(5, 2, 2), latent_shape=(4, 2, 2))
