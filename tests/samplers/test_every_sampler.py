"""What every posterior promises: axes, gradients, precision, a point estimate, a density that belongs to its draws."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch.distributions import kl_divergence

from vaelab.priors import (
    BernoulliPrior,
    CategoricalPrior,
    FlowPrior,
    GaussianMixturePrior,
    Prior,
    StandardNormalPrior,
    UniformSpherePrior,
    VampPrior,
)
from vaelab.samplers import (
    BernoulliSampler,
    CategoricalSampler,
    CouplingFlowSampler,
    FullGaussianSampler,
    IAFSampler,
    LaplaceSampler,
    PlanarFlowSampler,
    Sampler,
    VonMisesFisherSampler,
)

K, B, D = 3, 5, 6
Build = Callable[..., Sampler]


def iaf(**sizes: tuple[int, ...]) -> Sampler:
    return IAFSampler(**sizes, steps=2, hidden=[16], context=4)


def affine_coupling(**sizes: tuple[int, ...]) -> Sampler:
    return CouplingFlowSampler(**sizes, transform="affine", steps=2, hidden=[16], context=4)


def spline_coupling(**sizes: tuple[int, ...]) -> Sampler:
    return CouplingFlowSampler(**sizes, steps=2, hidden=[16], context=4, bins=4)


def categorical(**sizes: tuple[int, ...]) -> Sampler:
    return CategoricalSampler(**sizes, classes=3)


def relaxed(**sizes: tuple[int, ...]) -> Sampler:
    return CategoricalSampler(**sizes, classes=3, straight_through=False, temperature=0.8)


EUCLIDEAN = [FullGaussianSampler, LaplaceSampler, PlanarFlowSampler, iaf, affine_coupling, spline_coupling]
EVERY = [*EUCLIDEAN, VonMisesFisherSampler, categorical, relaxed, BernoulliSampler]
WITH_MAPS = [build for build in EVERY if build is not FullGaussianSampler]
SHAPES = [*((build, (7,), (D,)) for build in EVERY), *((build, (7, 2, 2), (D, 2, 2)) for build in WITH_MAPS)]


def matching_prior(sampler: Sampler) -> Prior:
    shape = sampler.latent_shape
    candidates = [
        StandardNormalPrior(latent_shape=shape),
        UniformSpherePrior(latent_shape=shape),
        CategoricalPrior(latent_shape=shape, classes=3),
        CategoricalPrior(latent_shape=shape, classes=3, temperature=0.5),
        BernoulliPrior(latent_shape=shape),
    ]
    (prior,) = [p for p in candidates if p.space == sampler.space]
    return prior


@pytest.mark.parametrize(("build", "in_shape", "latent_shape"), SHAPES)
def test_draws_and_densities_of_a_batch_are_those_of_its_examples(
    build: Build, in_shape: tuple[int, ...], latent_shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=in_shape, latent_shape=latent_shape).double()
    features = 3 * torch.randn(B, *in_shape, dtype=torch.float64)
    q = sampler(features)
    assert (q.batch_shape, q.event_shape) == ((B,), latent_shape)
    z = q.rsample((K,))
    log_prob = q.log_prob(z)
    assert z.shape == (K, B, *latent_shape)
    assert z.dtype == log_prob.dtype == torch.float64
    assert log_prob.shape == (K, B)
    assert len(log_prob.flatten().unique()) > 1
    for b in range(B):
        single = sampler(features[b : b + 1])
        torch.testing.assert_close(single.log_prob(z[:, b : b + 1]), log_prob[:, b : b + 1])


@pytest.mark.parametrize(("build", "in_shape", "latent_shape"), SHAPES)
def test_every_parameter_gets_a_gradient(
    build: Build, in_shape: tuple[int, ...], latent_shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=in_shape, latent_shape=latent_shape)
    prior = matching_prior(sampler)()
    q = sampler(torch.randn(B, *in_shape))
    z = q.rsample((K,))
    loss = (z * torch.randn_like(z)).sum() + (q.log_prob(z) - prior.log_prob(z)).sum()
    loss.backward()
    for name, parameter in sampler.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("build", EVERY)
def test_half_precision_features_give_a_density_in_float32(build: Build) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=(7,), latent_shape=(D,))
    features = torch.randn(B, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = sampler(features.bfloat16())
        z = q.rsample((K,))
        log_prob = q.log_prob(z)
    assert z.dtype == log_prob.dtype == q.mean.dtype == torch.float32
    # The same distribution, drawn from and scored without autocast, has the same density at the same points.
    exact = q.log_prob(z.clone())
    torch.testing.assert_close(log_prob, exact, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("build", EVERY)
def test_weights_in_half_precision_give_a_density_in_float32(build: Build) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=(7,), latent_shape=(D,)).bfloat16()
    q, p = sampler(torch.randn(B, 7).bfloat16()), matching_prior(sampler).bfloat16()()
    z = q.rsample((K,))
    for density in (q.log_prob(z), q.log_prob(z.clone()), p.log_prob(z)):
        assert density.dtype == torch.float32
        assert torch.isfinite(density).all()


@pytest.mark.parametrize(("build", "in_shape", "latent_shape"), SHAPES)
def test_mean_draws_no_noise(build: Build, in_shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    q = build(in_shape=in_shape, latent_shape=latent_shape)(torch.randn(B, *in_shape))
    state = torch.get_rng_state()
    mean = q.mean
    assert mean.shape == (B, *latent_shape)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(mean, q.mean)


@pytest.mark.parametrize("build", [FullGaussianSampler, LaplaceSampler, categorical, BernoulliSampler])
def test_mean_is_that_of_the_draws(build: Build) -> None:
    torch.manual_seed(0)
    q = build(in_shape=(7,), latent_shape=(D,))(torch.randn(B, 7))
    z = q.sample((20_000,))
    assert ((z.mean(0) - q.mean).abs() < 5 * z.std(0) / 20_000**0.5).all()
    torch.testing.assert_close(z.var(0), q.variance, atol=0, rtol=0.12)


@pytest.mark.parametrize("build", EVERY)
def test_density_of_another_posterior_over_its_own_averages_to_one(build: Build) -> None:
    """E_q[p(z) / q(z)] = 1 if the density q belongs to its draws and p integrates to one, here for p close to q."""
    torch.manual_seed(0)
    sampler = build(in_shape=(7,), latent_shape=(D,)).double()
    features = torch.randn(1, 7, dtype=torch.float64)
    other = copy.deepcopy(sampler)
    for parameter in other.parameters():
        parameter.data += 0.005 * torch.randn_like(parameter)
    q, p = sampler(features), other(features)
    z = q.sample((20_000,))
    ratio = (p.log_prob(z) - q.log_prob(z)).exp()
    assert ratio.mean().item() == pytest.approx(1, abs=5 * ratio.std().item() / len(z) ** 0.5)
    assert ratio.std() > 0


CLOSED = [FullGaussianSampler, LaplaceSampler, VonMisesFisherSampler, categorical, BernoulliSampler]


@pytest.mark.parametrize(("build", "in_shape", "latent_shape"), [s for s in SHAPES if s[0] in CLOSED])
def test_closed_kl_is_the_mean_of_its_samples(
    build: Build, in_shape: tuple[int, ...], latent_shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=in_shape, latent_shape=latent_shape)
    p = matching_prior(sampler)()
    q = sampler(2 * torch.randn(2, *in_shape))
    z = q.rsample((5000,))
    sampled = q.log_prob(z) - p.log_prob(z)
    tolerance = 5 * (sampled.std(0) / len(z) ** 0.5).max().item() + 1e-4
    kl = kl_divergence(q, p)
    assert kl.shape == (2,)
    assert (kl > 0).all()
    torch.testing.assert_close(kl, sampled.mean(0), atol=tolerance, rtol=0)


@pytest.mark.parametrize("build", [PlanarFlowSampler, iaf, affine_coupling, spline_coupling, relaxed])
def test_no_kl_is_made_up_where_there_is_no_closed_one(build: Build) -> None:
    sampler = build(in_shape=(7,), latent_shape=(D,))
    with pytest.raises(NotImplementedError):
        kl_divergence(sampler(torch.randn(B, 7)), matching_prior(sampler)())


@pytest.mark.parametrize("build", EVERY)
def test_prior_on_another_space_is_refused(build: Build) -> None:
    sampler = build(in_shape=(7,), latent_shape=(D,))
    matching_prior(sampler).check_space(sampler.space, sampler.remedy)
    VampPrior(latent_shape=(D,)).check_space(sampler.space, sampler.remedy)
    wrong: Prior = UniformSpherePrior(latent_shape=(D,))
    if sampler.space == wrong.space:
        wrong = StandardNormalPrior(latent_shape=(D,))
    with pytest.raises(ValueError, match=rf"draws z on {sampler.space}; choose model/prior=\w+"):
        wrong.check_space(sampler.space, sampler.remedy)


def test_learned_euclidean_priors_fit_euclidean_samplers() -> None:
    sampler = LaplaceSampler(in_shape=(7,), latent_shape=(D,))
    for prior in (GaussianMixturePrior(latent_shape=(D,)), FlowPrior(latent_shape=(D,))):
        prior.check_space(sampler.space, sampler.remedy)


def test_classes_and_temperature_of_sampler_and_prior_must_agree() -> None:
    prior = CategoricalPrior(latent_shape=(12,), classes=4)
    three = CategoricalSampler(in_shape=(7,), latent_shape=(12,), classes=3)
    with pytest.raises(ValueError, match=r"model\.prior\.classes=3 model\.prior\.temperature=null"):
        prior.check_space(three.space, three.remedy)
    soft = CategoricalSampler(in_shape=(7,), latent_shape=(12,), classes=4, straight_through=False)
    with pytest.raises(ValueError, match=r"model\.prior\.temperature=0\.5"):
        prior.check_space(soft.space, soft.remedy)


@pytest.mark.parametrize("build", EVERY)
def test_latent_map_of_another_size_than_the_features_is_refused(build: Build) -> None:
    with pytest.raises(ValueError, match=r"latents of shape|latent map of shape"):
        build(in_shape=(7,), latent_shape=(D, 2, 2))
