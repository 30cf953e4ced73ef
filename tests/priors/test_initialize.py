"""Priors that start from codes, and the Gaussian with a full covariance."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaelab.priors import FlowPrior, FullGaussianPrior, GaussianMixturePrior


def codes(n: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[30.0, 0.0, 5.0], [-30.0, 2.0, 5.0]])
    return centers[torch.arange(n) % 2] + torch.randn(n, 3, generator=generator) * torch.tensor([1.0, 0.5, 3.0])


def test_the_full_gaussian_is_the_multivariate_normal_of_its_parameters():
    prior = FullGaussianPrior(latent_shape=(3,)).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    tril = prior.scale_tril
    assert torch.equal(tril, tril.tril())
    reference = MultivariateNormal(prior.mean, scale_tril=tril)
    z = torch.randn(7, 3).double()
    torch.testing.assert_close(prior().log_prob(z), reference.log_prob(z))
    torch.manual_seed(0)
    drawn = prior().sample((20000,))
    torch.testing.assert_close(torch.cov(drawn.T), tril @ tril.T, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1)])
def test_the_full_gaussian_takes_mean_and_covariance(shape):
    prior = FullGaussianPrior(latent_shape=shape)
    z = codes()
    prior.initialize(z.view(-1, *shape))
    torch.testing.assert_close(prior.mean.detach(), z.mean(0), rtol=1e-4, atol=1e-4)
    tril = prior.scale_tril.detach()
    torch.testing.assert_close(tril @ tril.T, torch.cov(z.T), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="needs more than 3 codes"):
        prior.initialize(z[:3].view(-1, *shape))


def test_the_mixture_finds_the_clusters_by_expectation_maximisation():
    prior = GaussianMixturePrior(latent_shape=(3,), components=2)
    prior.initialize(codes())
    order = prior.means[:, 0].argsort(descending=True)
    torch.testing.assert_close(
        prior.means[order].detach(), torch.tensor([[30.0, 0, 5], [-30, 2, 5]]), rtol=0.0, atol=0.2
    )
    torch.testing.assert_close(
        prior.log_stds.exp().detach(), torch.tensor([[1.0, 0.5, 3.0]]).expand(2, 3), rtol=0.05, atol=0.0
    )
    with pytest.raises(ValueError, match="cannot be fitted to 1 codes"):
        prior.initialize(codes(1))


def test_a_flow_starts_at_the_codes_mean_and_deviation_and_stays_a_density():
    torch.manual_seed(0)
    prior = FlowPrior(latent_shape=(3,), steps=2, hidden=[8])
    z = codes()
    before = prior().log_prob(z).mean()
    prior.initialize(z)
    assert prior().log_prob(z).mean() > before + 50
    x = torch.randn(3, dtype=torch.float64)
    flow = prior.double()()
    jacobian = torch.autograd.functional.jacobian(lambda u: flow._push(u.unsqueeze(0))[0][0], x)
    u_log = flow.base.log_prob(x)
    expected = u_log - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_prob(flow._push(x.unsqueeze(0))[0])[0], expected)


def test_codes_without_spread_still_leave_a_density():
    constant = torch.ones(50, 3)
    prior = FullGaussianPrior(latent_shape=(3,))
    prior.initialize(constant)
    assert prior().log_prob(constant).isfinite().all()
    with pytest.raises(ValueError, match="at least 2"):
        FlowPrior(latent_shape=(3,)).initialize(constant[:1])
