"""The VAE with an autoregressive decoder: scoring, drawing, axes, contexts."""

from functools import partial

import pytest
import torch
from torch import Tensor

from vaelab.callbacks.drawing import DRAWING_SEED
from vaelab.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from vaelab.models import VAE, build_vae
from vaelab.models.autoregressive import MEAN_SEED
from vaelab.networks import Condition, ConvDecoder, ConvEncoder, LabelCondition, PixelCNNDecoder
from vaelab.numerics import seeded
from vaelab.objectives import ELBO, IWAE
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

X_SHAPE = (2, 3, 4)
LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood(),
    "categorical": CategoricalLikelihood(levels=3),
    "mixture": DiscretizedLogisticMixtureLikelihood(levels=3, num_components=2),
    "gaussian": GaussianLikelihood(scale="predicted"),
    "per pixel": GaussianLikelihood(scale="learned_per_pixel", x_shape=X_SHAPE),
}


def make(
    likelihood: Likelihood | None = None,
    *,
    x_shape: tuple[int, int, int] = X_SHAPE,
    latent_map: bool = False,
    condition: Condition | None = None,
) -> VAE:
    torch.manual_seed(0)
    inner = partial(ConvDecoder, channels=[4])
    network = {"x_shape": x_shape, "inner": inner, "channels": 6, "layers": 2, "first_kernel": 3}
    model = build_vae(
        x_shape=x_shape,
        latent_dim=2,
        latent_map=latent_map,
        encoder=partial(ConvEncoder, channels=[4]),
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=partial(PixelCNNDecoder, condition_channels=5, **network),
        likelihood=likelihood or BernoulliLikelihood(),
        condition=condition,
    )
    for p in model.decoder.parameters():
        p.data *= 2  # pixels and latents matter
    return model.double().eval()


def levels(*batch: int) -> Tensor:
    return torch.randint(3, (*batch, *X_SHAPE)).double() / 2


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
@pytest.mark.parametrize("latent_map", [False, True])
def test_terms_and_p_x_agree_for_every_draw(likelihood: Likelihood, latent_map: bool) -> None:
    model, x = make(likelihood, latent_map=latent_map), levels(4)
    terms = model(x, num_samples=3)
    assert terms.log_px.shape == (3, 4)
    for k, z in enumerate(terms.latents[0].z):
        torch.testing.assert_close(model.p_x(z).log_prob(x), terms.log_px[k])
        torch.testing.assert_close(
            torch.stack([model.p_x(z[b : b + 1]).log_prob(x[b]) for b in range(4)]).squeeze(1), terms.log_px[k]
        )
    torch.testing.assert_close(terms.x_mean, likelihood(terms.params).mean)


def test_all_draws_are_scored_in_one_call() -> None:
    model, x = make(), levels(4)
    seen: list[int] = []
    model.decoder.pixelcnn.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    model(x, num_samples=3)
    assert seen == [12]


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_draws_have_the_shapes_of_the_distribution_and_values_the_likelihood_scores(likelihood: Likelihood) -> None:
    model = make(likelihood)
    p = model.p_x(torch.randn(4, 2).double())
    assert (p.batch_shape, p.event_shape) == ((4,), X_SHAPE)
    x = p.sample((2, 3))
    assert x.shape == (2, 3, 4, *X_SHAPE)
    assert x.dtype == torch.float64
    log_prob = p.log_prob(x)
    assert log_prob.shape == (2, 3, 4)
    assert log_prob.isfinite().all()
    torch.testing.assert_close(log_prob[1, 2], p.log_prob(x[1, 2]))


def test_probabilities_of_all_images_sum_to_one_and_they_are_drawn_that_often() -> None:
    model = make(x_shape=(1, 2, 2))
    z, count = 20 * torch.randn(2, 2).double(), 20_000
    p = model.p_x(z)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4).view(16, 1, 1, 2, 2)
    probabilities = p.log_prob(images.expand(-1, 2, -1, -1, -1)).exp().detach()  # (16, 2)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(2).double())
    torch.manual_seed(1)
    places = (p.sample((count,)).flatten(2) @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()  # (count, 2)
    for b in range(2):
        frequencies = torch.bincount(places[:, b], minlength=16) / count
        expected = probabilities[:, b]
        assert ((frequencies - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt() + 1e-4).all()
    assert (probabilities[:, 0] - probabilities[:, 1]).abs().max() > 0.02  # z matters


def test_per_pixel_scales_are_drawn_from_at_their_place() -> None:
    likelihood = GaussianLikelihood(scale="learned_per_pixel", x_shape=X_SHAPE)
    likelihood.log_scale.data = torch.linspace(-6, 0, 24).view(X_SHAPE)
    model = make(likelihood)
    p = model.p_x(torch.zeros(1, 2).double())
    x = p.sample((4000,))
    mean = likelihood(model.decoder(torch.zeros(4000, 2).double(), x=x.squeeze(1))).mean
    torch.testing.assert_close((x.squeeze(1) - mean).std(0), likelihood.log_scale.exp().double(), rtol=0.1, atol=0)


@torch.no_grad()
def test_the_mean_is_repeatable_and_averages_to_that_of_the_draws() -> None:
    model = make()
    z = torch.randn(1, 2).double().expand(3000, -1)
    state = torch.get_rng_state()
    mean = model.decode(z)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(mean, model.decode(z))
    x = model.p_x(z).sample()
    torch.testing.assert_close(mean.mean(0), x.mean(0), rtol=0, atol=5 * 0.5 * (2 / 3000) ** 0.5)
    assert mean.var(0).sum() < 0.9 * x.var(0).sum()  # the noise of a pixel's own draw is gone


def test_the_noise_of_a_picture_is_not_that_of_its_latents() -> None:
    """One seed for both would make every pixel's uniform noise the one that a latent was made of."""
    with seeded(DRAWING_SEED, torch.device("cpu")):
        z = torch.randn(4096)
    with seeded(MEAN_SEED, torch.device("cpu")):
        noise = torch.rand(4096)
    assert abs(torch.corrcoef(torch.stack([z.square(), noise]))[0, 1]) < 5 / 64


def test_the_mean_passes_the_gradient_of_the_latents_on() -> None:
    z = torch.randn(20, 2).double().requires_grad_()
    make().decode(z).sum().backward()
    assert z.grad is not None
    assert (z.grad != 0).any(0).all()


@pytest.mark.parametrize("how", ["concat", "film"])
def test_a_conditional_model_scores_and_draws_given_its_labels(how: str) -> None:
    model = make(condition=LabelCondition(num_classes=3, how=how))
    for p in model.decoder.parameters():
        p.data += 0.3 * torch.randn_like(p)
    x, y = levels(4), torch.tensor([0, 1, 2, 0])
    terms = model(x, y, num_samples=3)
    for k, z in enumerate(terms.latents[0].z):
        torch.testing.assert_close(model.p_x(z, y).log_prob(x), terms.log_px[k])
    z = terms.latents[0].z[0]
    assert (model.p_x(z, (y + 1) % 3).log_prob(x) != model.p_x(z, y).log_prob(x)).all()
    assert model.sample(4, y, mean=False, seed=0).shape == (4, *X_SHAPE)
    assert model.reconstruct(x, y).shape == x.shape
    with pytest.raises(ValueError, match="this model is conditional on labels"):
        model.p_x(z)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(num_samples=3)])
def test_every_parameter_gets_a_gradient(objective: ELBO | IWAE) -> None:
    model = make(GaussianLikelihood(scale="predicted"))
    loss, _ = objective(model(levels(5), num_samples=objective.num_samples), 0)
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name


def test_samples_are_repeatable() -> None:
    model = make()
    for mean in (True, False):
        torch.testing.assert_close(model.sample(3, mean=mean, seed=5), model.sample(3, mean=mean, seed=5))
    assert set(model.sample(3, mean=False, seed=5).unique().tolist()) <= {0.0, 1.0}
