"""RAE and perceptual objectives, against values worked out by hand."""

import pytest
import torch
from small_models import small_vae
from torch import nn

from vaelab.likelihoods import GaussianLikelihood
from vaelab.models import VAE, Terms, build_vae
from vaelab.networks import Decoder, Encoder
from vaelab.objectives import RAE, Perceptual, PriorLikelihood
from vaelab.priors import FullGaussianPrior, StandardNormalPrior
from vaelab.samplers import DeterministicSampler, GaussianSampler


class LinearEncoder(Encoder):
    def __init__(self, in_shape):
        super().__init__()
        self.in_shape, self.out_shape = in_shape, (4,)

    def forward(self, x):
        return x.flatten(1)


class LinearDecoder(Decoder):
    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.in_shape, self.out_shape = in_shape, out_shape
        self.linear = nn.Linear(in_shape[0], 4)

    def forward(self, z):
        return self.linear(z).unflatten(1, self.out_shape)


def linear(sampler=DeterministicSampler, prior=StandardNormalPrior, **options) -> VAE:
    torch.manual_seed(0)
    return build_vae(
        x_shape=(1, 2, 2),
        latent_dim=3,
        encoder=LinearEncoder,
        sampler=sampler,
        prior=prior,
        decoder=LinearDecoder,
        likelihood=GaussianLikelihood(scale="fixed", sigma=1.0),
        **options,
    ).double()


X = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()


def test_the_code_norm_and_the_decoders_norm_by_hand():
    model = linear()
    terms = model(X)
    loss, logs = RAE(beta=0.5, regularizer="l2", weight=0.1)(terms, 0)
    z = model.encode(X).mean
    theta = sum(p.square().sum() for p in model.decoder.parameters())
    expected = -terms.log_px.mean() + 0.5 * z.square().sum(1).mean() / 2 + 0.1 * theta
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logs["l2"], theta.detach())


def test_the_gradient_penalty_is_the_squared_norm_of_the_jacobian():
    model = linear()
    norm = model.decoder.linear.weight.square().sum()
    objective = RAE(regularizer="gradient_penalty", weight=1.0)
    torch.manual_seed(3)
    draws = torch.stack([objective(model(X), 0)[1]["gradient_penalty"] for _ in range(400)])
    assert abs(draws.mean() - norm) < 4 * draws.std() / 20
    loss, _ = RAE(beta=0.0, regularizer="gradient_penalty", weight=1e6)(model(X), 0)
    loss.backward()
    weight = model.decoder.linear.weight
    assert torch.cosine_similarity(weight.grad.flatten(), weight.flatten(), dim=0) > 0.8  # it shrinks the slope


def test_spectral_norm_bounds_the_slope_of_every_layer():
    model = small_vae(DeterministicSampler, likelihood=GaussianLikelihood(), spectral_norm=True).train()
    for layer in model.decoder.modules():
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.parametrizations.weight.original.mul_(10)
            for _ in range(50):  # power iterations of training steps
                layer.weight  # noqa: B018
            assert torch.linalg.svdvals(layer.weight)[0].item() == pytest.approx(1.0, abs=1e-3)


def test_terms_without_their_model_are_refused():
    terms = linear()(X)
    bare = Terms(log_px=terms.log_px, latents=terms.latents)
    with pytest.raises(ValueError, match="terms without their model do not give; choose objective=elbo"):
        RAE(regularizer="l2")(bare, 0)
    with pytest.raises(ValueError, match="regularizer"):
        RAE(regularizer="l1")


def test_ssim_of_equal_images_is_no_loss_and_of_others_as_the_paper_has_it():
    objective = Perceptual(similarity="ssim")
    x = torch.rand(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(objective.compare(x, x), torch.zeros(3))
    # Constant images of a and b: only the luminance term is left, (2ab + c) / (a^2 + b^2 + c).
    a, b, c = 0.2, 0.7, 0.01**2
    found = objective.compare(torch.full((1, 1, 16, 16), a), torch.full((1, 1, 16, 16), b))
    expected = 256 * (1 - (2 * a * b + c) / (a * a + b * b + c)) / 2
    torch.testing.assert_close(found, torch.tensor([expected]), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="at least 6x6"):
        objective.compare(x[..., :4, :4], x[..., :4, :4])


def test_ssim_is_the_same_in_mixed_precision():
    x = 0.9 + 0.02 * torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = Perceptual(similarity="ssim").compare(x, x.flip(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(Perceptual(similarity="ssim").compare(x, x.flip(3)), expected)


def test_features_see_equal_images_as_equal_and_train_the_decoder_only():
    objective = Perceptual(similarity="vgg19", pretrained=False, weight=10.0)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(objective.compare(x, x), torch.zeros(2))
    other = torch.rand(2, 1, 8, 8, requires_grad=True)
    objective.compare(other, x).sum().backward()
    assert other.grad.any()
    assert not list(objective.parameters())
    with pytest.raises(ValueError, match="1 or 3 channels"):
        objective.compare(torch.rand(1, 2, 8, 8), torch.rand(1, 2, 8, 8))


def test_a_prior_fitted_by_its_likelihood_reaches_the_codes_own_gaussian():
    model = linear(prior=FullGaussianPrior)
    x = torch.rand(400, 1, 2, 2, generator=torch.Generator().manual_seed(2)).double()
    z = model.encode(x).mean.detach()
    model.prior.initialize(z)
    best = PriorLikelihood()(model(x), 0)[0]
    normal = torch.distributions.MultivariateNormal(z.mean(0), torch.cov(z.T, correction=0))
    torch.testing.assert_close(best, -normal.log_prob(z).mean(), rtol=1e-3, atol=1e-3)
    best.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.prior.parameters()])
    assert gradient.abs().max() < 0.01  # at the maximum of the likelihood


def test_the_log_prior_is_that_of_draws_from_the_posterior():
    model = linear(sampler=GaussianSampler)
    terms = model(X, num_samples=2)
    loss, logs = PriorLikelihood()(terms, 0)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(terms.latents[0].z).sum(-1).mean()
    torch.testing.assert_close(logs["log_prior"], expected.detach())
    torch.testing.assert_close(loss, -expected)
