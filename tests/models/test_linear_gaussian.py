"""A linear-Gaussian model built from the parts: its posterior, its evidence and its bound are known exactly."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaelab.likelihoods import GaussianLikelihood
from vaelab.models import VAE, Latent, Terms
from vaelab.networks import Decoder, Encoder
from vaelab.objectives import ELBO
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

PIXELS, LATENTS, BATCH = 6, 2, 5


class PixelsAsFeatures(Encoder):
    """x itself, as a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (1, 2, 3), (PIXELS,)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class LinearDecoder(Decoder):
    """W z + b."""

    def __init__(self, loadings: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (LATENTS,), (1, 2, 3)
        self.loadings, self.offset = nn.Parameter(loadings), nn.Parameter(offset)

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.loadings.T + self.offset).unflatten(-1, self.out_shape)


class Exact(NamedTuple):
    """A model whose q(z|x) is the exact posterior, data, and what is known of them."""

    model: VAE
    x: Tensor
    posterior: Independent

    def log_evidence(self) -> Tensor:
        """log N(x; b, W W^T + sigma^2 I), (B,)."""
        w, b = self.model.decoder.loadings, self.model.decoder.offset
        covariance = w @ w.T + self.model.likelihood.sigma**2 * torch.eye(PIXELS, dtype=w.dtype)
        return MultivariateNormal(b, covariance).log_prob(self.x.flatten(1))


def linear(head: nn.Module) -> nn.Linear:
    """The linear layer of a sampler's head."""
    return next(m for m in head.modules() if isinstance(m, nn.Linear))


@pytest.fixture(params=["log_variance", "log_std"])
def exact(request: pytest.FixtureRequest) -> Exact:
    torch.manual_seed(0)
    orthogonal = torch.linalg.qr(torch.randn(PIXELS, LATENTS, dtype=torch.float64)).Q
    w = orthogonal * torch.tensor([1.5, 0.4], dtype=torch.float64)
    b = torch.randn(PIXELS, dtype=torch.float64)
    model = VAE(
        encoder=PixelsAsFeatures(),
        sampler=GaussianSampler(in_shape=(PIXELS,), latent_shape=(LATENTS,), parameterization=request.param),
        prior=StandardNormalPrior(latent_shape=(LATENTS,)),
        decoder=LinearDecoder(w, b),
        likelihood=GaussianLikelihood(scale="fixed", sigma=0.7),
    ).double()
    sigma = model.likelihood.sigma
    # Orthogonal loadings: p(z|x) = N(S W^T (x - b) / sigma^2, S) with S = (I + W^T W / sigma^2)^-1, which is diagonal.
    variance = 1 / (1 + (w * w).sum(0) / sigma**2)
    projection = variance.unsqueeze(1) * w.T / sigma**2
    mean, log_scale = linear(model.sampler.mean), linear(model.sampler.log_scale)
    with torch.no_grad():
        mean.weight.copy_(projection)
        mean.bias.copy_(-projection @ b)
        log_scale.weight.zero_()
        log_scale.bias.copy_(variance.log() if request.param == "log_variance" else variance.log() / 2)
    x = 2 * torch.randn(BATCH, 1, 2, 3, dtype=torch.float64)
    posterior = Independent(Normal((x.flatten(1) - b) @ projection.T, variance.sqrt().expand(BATCH, -1)), 1)
    return Exact(model, x, posterior)


def sigma_point_terms(model: VAE, x: Tensor) -> Terms:
    """Terms at z = mu +- sqrt(D) sigma_j e_j: the mean over them of what is quadratic in z is its exact expectation."""
    q = model.encode(x)
    eye = math.sqrt(LATENTS) * torch.eye(LATENTS, dtype=x.dtype)
    z = q.mean + q.stddev * torch.cat([eye, -eye]).unsqueeze(1)
    params = model.decoder(z)
    return Terms(log_px=model.likelihood.log_prob(params, x), latents=(Latent(z=z, q=q, p=model.prior()),))


def spoil(model: VAE) -> None:
    """Moves q(z|x) away from the posterior."""
    with torch.no_grad():
        for p in model.sampler.parameters():
            p.add_(0.3 * torch.randn_like(p))


def test_every_draw_from_the_exact_posterior_weighs_the_evidence(exact: Exact) -> None:
    terms = exact.model(exact.x, num_samples=7)
    assert terms.log_weights.shape == (7, BATCH)
    torch.testing.assert_close(terms.log_weights, exact.log_evidence().expand(7, -1), rtol=0, atol=1e-10)


def test_expected_elbo_of_the_exact_posterior_is_the_evidence(exact: Exact) -> None:
    elbo = sigma_point_terms(exact.model, exact.x).elbo.mean(0)
    torch.testing.assert_close(elbo, exact.log_evidence(), rtol=0, atol=1e-10)


def test_sampled_elbo_of_the_exact_posterior_is_an_unbiased_estimate_of_the_evidence(exact: Exact) -> None:
    elbo = exact.model(exact.x, num_samples=4000).elbo
    error = elbo.mean(0) - exact.log_evidence()
    standard_error = elbo.std(0) / math.sqrt(len(elbo))
    assert (standard_error < 0.05).all()
    assert (error.abs() < 4 * standard_error).all()


def test_any_other_posterior_loses_its_divergence_from_the_exact_one(exact: Exact) -> None:
    spoil(exact.model)
    elbo = sigma_point_terms(exact.model, exact.x).elbo.mean(0)
    gap = kl_divergence(exact.model.encode(exact.x), exact.posterior)
    assert (elbo < exact.log_evidence() - 1e-3).all()
    torch.testing.assert_close(elbo, exact.log_evidence() - gap, rtol=0, atol=1e-10)


def test_mean_importance_weight_of_another_posterior_is_the_evidence(exact: Exact) -> None:
    sampler = exact.model.sampler
    with torch.no_grad():  # wider than the posterior by a factor of 2, so that the weights have a finite variance
        linear(sampler.log_scale).bias.add_(math.log(2) / sampler.log_std_per_unit)
        linear(sampler.mean).bias.add_(0.1)
        weights = (exact.model(exact.x, num_samples=4000).log_weights - exact.log_evidence()).exp()
    standard_error = weights.std(0) / math.sqrt(len(weights))
    assert (standard_error > 1e-3).all()
    assert ((weights.mean(0) - 1).abs() < 4 * standard_error).all()


def test_gradient_of_the_elbo_at_the_exact_posterior_is_the_gradient_of_the_evidence(exact: Exact) -> None:
    decoder, sampler = list(exact.model.decoder.parameters()), list(exact.model.sampler.parameters())
    wanted = torch.autograd.grad(exact.log_evidence().sum(), decoder)
    loss, _ = ELBO()(sigma_point_terms(exact.model, exact.x), 0)
    by_decoder = torch.autograd.grad(-BATCH * loss, decoder, retain_graph=True)
    for gradient, exact_gradient in zip(by_decoder, wanted, strict=True):
        assert exact_gradient.abs().max() > 0.1
        torch.testing.assert_close(gradient, exact_gradient, rtol=0, atol=1e-9)
    for gradient in torch.autograd.grad(loss, sampler):  # the bound is at its maximum
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


def test_reconstruction_of_the_exact_posterior_is_the_shrunken_projection(exact: Exact) -> None:
    w, b = exact.model.decoder.loadings, exact.model.decoder.offset
    ridge = torch.linalg.inv(w.T @ w + exact.model.likelihood.sigma**2 * torch.eye(LATENTS, dtype=w.dtype))
    wanted = (exact.x.flatten(1) - b) @ w @ ridge @ w.T + b
    torch.testing.assert_close(exact.model.reconstruct(exact.x).flatten(1), wanted, rtol=0, atol=1e-10)
