"""What every objective promises, whatever it optimises."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

import vaelab.objectives
from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import VAE, Latent, Terms, build_vae
from vaelab.networks import ConvDiscriminator, MLPDecoder, MLPDiscriminator, MLPEncoder
from vaelab.objectives import (
    AAE,
    CIWAE,
    DIPVAE,
    ELBO,
    GECO,
    IWAE,
    MIWAE,
    PIWAE,
    RAE,
    SWAE,
    VAEGAN,
    Adversarial,
    BetaTCVAE,
    Capacity,
    FactorVAE,
    FreeBits,
    InfoVAE,
    Objective,
    Perceptual,
    PriorLikelihood,
    Renyi,
)
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

Make = Callable[[], Objective]


def adversarial(objective: type[Adversarial], **settings: float) -> Adversarial:
    """With a discriminator of its latents or its images, the same one every time."""
    torch.manual_seed(4)
    if objective is VAEGAN:
        return VAEGAN(discriminator=ConvDiscriminator(in_shape=SHAPE, channels=[4]), **settings).double()
    return objective(discriminator=MLPDiscriminator(in_shape=(2,), hidden=[8]), **settings).double()


SHAPE = (1, 6, 7)
MAKERS: dict[str, Make] = {
    "elbo": partial(ELBO, beta=3.0, num_samples=2),
    "elbo-stl": partial(ELBO, beta=3.0, estimator="stl"),
    "free-bits": partial(FreeBits, free_nats=0.3, num_samples=2),
    "free-bits-group": partial(FreeBits, free_nats=5.0, per="group"),
    "capacity": Capacity,
    "geco": partial(GECO, target=-3.0),
    "iwae": partial(IWAE, num_samples=4),
    "iwae-stl": partial(IWAE, num_samples=4, estimator="stl"),
    "iwae-dreg": partial(IWAE, num_samples=4, estimator="dreg"),
    "miwae": partial(MIWAE, num_groups=3, group_size=2),
    "piwae": partial(PIWAE, num_groups=3, group_size=2),
    "piwae-dreg": partial(PIWAE, num_groups=3, group_size=2, estimator="dreg"),
    "ciwae": partial(CIWAE, num_samples=4),
    "renyi": partial(Renyi, num_samples=4),
    "beta-tcvae": partial(BetaTCVAE, train_size=100, num_samples=2),
    "beta-tcvae-weighted": partial(BetaTCVAE, train_size=100, sampling="minibatch_weighted"),
    "dip-vae-i": partial(DIPVAE, variant="i"),
    "dip-vae-ii": partial(DIPVAE, variant="ii", num_samples=2),
    "infovae": partial(InfoVAE, alpha=0.5, lambda_mmd=10.0, num_samples=2),
    "wae-mmd": partial(InfoVAE, lambda_mmd=10.0, kernel="imq"),
    "swae": partial(SWAE, num_samples=2),
    "factor-vae": partial(adversarial, FactorVAE, gamma=5.0, num_samples=2),
    "aae": partial(adversarial, AAE, num_samples=2),
    "vae-gan": partial(adversarial, VAEGAN, num_samples=2),
    "rae-l2": partial(RAE, regularizer="l2"),
    "rae-gp": partial(RAE, regularizer="gradient_penalty"),
    "ssim": partial(Perceptual, similarity="ssim", num_samples=2),
}
# It trains nothing but the prior, and has its tests in test_regularized_autoencoder.py.
ELSEWHERE = {PriorLikelihood}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
# The batch is their estimate of the aggregate posterior, so that its size belongs to what they estimate.
SAMPLE_THE_AGGREGATE = ("beta-tcvae", "infovae", "wae-mmd", "swae", "vae-gan")


def model() -> VAE:
    torch.manual_seed(0)
    return build_vae(
        x_shape=SHAPE,
        latent_dim=2,
        encoder=partial(MLPEncoder, hidden=[8]),
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=partial(MLPDecoder, hidden=[8]),
        likelihood=BernoulliLikelihood(),
    ).double()


def terms_of(objective: Objective, batch: int = 6) -> Terms:
    torch.manual_seed(1)
    return model()(torch.rand(batch, *SHAPE).double(), num_samples=objective.num_samples)


def selected(terms: Terms, index: Tensor) -> Terms:
    """The terms of the examples `index` of the batch."""
    latent = terms.latents[0]
    q = Independent(Normal(latent.q.base_dist.loc[index], latent.q.base_dist.scale[index]), 1)
    # One tensor from which both z and the parameters follow, as in a model: some objectives differentiate by z.
    z = latent.z[:, index]
    params = terms.model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    latents = (Latent(z=z, q=q, p=latent.p),)
    return Terms(log_px=terms.log_px[:, index], latents=latents, x=terms.x[index], params=params, model=terms.model)


def loss_of(objective: Objective, terms: Terms) -> Tensor:
    torch.manual_seed(2)  # for what it draws itself
    with torch.no_grad():
        return objective(terms, 0)[0]


def test_every_public_objective_is_tested_here() -> None:
    public = {getattr(vaelab.objectives, name) for name in vaelab.objectives.__all__} - {Objective, Adversarial}
    assert {type(make()) for make in MAKERS.values()} == public - ELSEWHERE


@every
def test_the_logged_bound_is_the_true_one_whatever_is_optimised(make: Make) -> None:
    objective = make()
    terms = terms_of(objective)
    loss, logs = objective(terms, 0)
    q = terms.latents[0].q.base_dist
    kl = 0.5 * (q.loc**2 + q.scale**2 - 2 * q.scale.log() - 1).sum(1).mean()
    torch.testing.assert_close(logs["kl"], kl.detach())
    torch.testing.assert_close(logs["reconstruction"], terms.log_px.mean().detach())
    torch.testing.assert_close(logs["elbo"], (terms.log_px.mean() - kl).detach())
    torch.testing.assert_close(logs["loss"], loss.detach())
    tensors = [value for value in logs.values() if isinstance(value, Tensor)]
    assert not any(value.requires_grad or value.shape for value in tensors)


@every
def test_every_parameter_gets_a_finite_gradient(make: Make) -> None:
    objective, vae = make(), model()
    torch.manual_seed(3)
    loss, _ = objective(vae(torch.rand(6, *SHAPE).double(), num_samples=objective.num_samples), 0)
    loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every
def test_the_order_of_the_batch_does_not_matter(make: Make, request: pytest.FixtureRequest) -> None:
    terms = terms_of(make())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    if request.node.callspec.id == "beta-tcvae":  # one neighbour of an example weighs more than the others
        order = torch.arange(6).roll(2)
    torch.testing.assert_close(loss_of(make(), selected(terms, order)), loss_of(make(), terms))


@every
def test_the_size_of_the_batch_does_not_matter(make: Make, request: pytest.FixtureRequest) -> None:
    terms = terms_of(make())
    loss, twice = loss_of(make(), terms), loss_of(make(), selected(terms, torch.arange(6).repeat(2)))
    if request.node.callspec.id.startswith(SAMPLE_THE_AGGREGATE):
        assert abs(twice - loss) < 0.5 * abs(loss)  # a sum over the batch would have doubled it
    else:
        torch.testing.assert_close(twice, loss)


@every
def test_a_batch_of_one_gives_a_finite_loss(make: Make) -> None:
    loss, _ = make()(terms_of(make(), 1), 0)
    assert math.isfinite(loss.item())


@every
def test_objectives_run_in_single_precision(make: Make) -> None:
    objective = make().float()
    torch.manual_seed(6)
    loss, _ = objective(model().float()(torch.rand(6, *SHAPE), num_samples=objective.num_samples), 0)
    assert loss.dtype == torch.float32
    assert loss.requires_grad
