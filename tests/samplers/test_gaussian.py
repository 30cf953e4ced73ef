"""The diagonal Gaussian posterior: density, draws, gradients and the safe range of sigma."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

PARAMETERIZATIONS = ["log_variance", "log_std"]


def with_outputs(mean: float, log_scale: float, parameterization: str, *, latent_dim: int = 2) -> GaussianSampler:
    """A sampler whose heads ignore the features and emit two constants."""
    sampler = GaussianSampler(in_shape=(3,), latent_shape=(latent_dim,), parameterization=parameterization)
    for head, value in ((sampler.mean, mean), (sampler.log_scale, log_scale)):
        for p in head.parameters():
            nn.init.constant_(p, value if p.ndim == 1 else 0.0)
    return sampler


def kl(sampler: GaussianSampler, features: Tensor) -> Tensor:
    return kl_divergence(sampler(features), StandardNormalPrior(latent_shape=sampler.latent_shape)())


@pytest.mark.parametrize(("parameterization", "std"), [("log_variance", math.exp(0.35)), ("log_std", math.exp(0.7))])
def test_what_the_network_emits_is_log_variance_or_log_std(parameterization: str, std: float) -> None:
    q = with_outputs(1.5, 0.7, parameterization)(torch.randn(4, 3))
    torch.testing.assert_close(q.mean, torch.full((4, 2), 1.5))
    torch.testing.assert_close(q.stddev, torch.full((4, 2), std))
    torch.testing.assert_close(q.variance, torch.full((4, 2), std**2))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_log_prob_is_the_diagonal_gaussian_s(parameterization: str) -> None:
    torch.manual_seed(0)
    sampler = GaussianSampler(in_shape=(3,), latent_shape=(2,), parameterization=parameterization)
    q = sampler(torch.randn(4, 3))
    z = torch.randn(5, 4, 2)
    wanted = -0.5 * (((z - q.mean) / q.stddev) ** 2 + q.variance.log() + math.log(2 * math.pi)).sum(-1)
    torch.testing.assert_close(q.log_prob(z), wanted)
    per_dim = [Normal(q.mean[:, j], q.stddev[:, j]).log_prob(z[..., j]) for j in range(2)]
    torch.testing.assert_close(q.log_prob(z), sum(per_dim))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_both_parameterizations_reach_the_same_posterior(parameterization: str) -> None:
    emitted = 2 * math.log(0.3) if parameterization == "log_variance" else math.log(0.3)
    sampler, features = with_outputs(-0.4, emitted, parameterization), torch.zeros(1, 3)
    wanted = 2 * 0.5 * (0.4**2 + 0.3**2 - math.log(0.3**2) - 1)
    assert kl(sampler, features).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_draws_are_reparameterised(parameterization: str) -> None:
    """z = mu + sigma eps: dz/dmu = 1 and dz/dlog sigma = z - mu."""
    torch.manual_seed(0)
    sampler = with_outputs(0.5, -0.3, parameterization, latent_dim=1)
    q = sampler(torch.zeros(1, 3))
    z = q.rsample((1,))
    by_mean, by_log_scale = torch.autograd.grad(z.sum(), [sampler.mean[1].bias, sampler.log_scale[1].bias])
    assert by_mean.item() == pytest.approx(1)
    by_log_std = by_log_scale.item() * (2 if parameterization == "log_variance" else 1)
    assert by_log_std == pytest.approx((z - q.mean).item(), rel=1e-5)


def test_draws_have_the_moments_of_the_posterior() -> None:
    torch.manual_seed(0)
    q = with_outputs(1.0, math.log(2.0), "log_std")(torch.zeros(1, 3))
    z = q.rsample((20_000,)).squeeze(1)
    torch.testing.assert_close(z.mean(0), torch.ones(2), rtol=0, atol=4 * 2 / 20_000**0.5)
    torch.testing.assert_close(z.T.cov(), 4 * torch.eye(2), rtol=0, atol=4 * 4 * (2 / 20_000) ** 0.5)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("emitted", [-1e30, -1e4, -50.0, 50.0, 1e4, 1e30])
def test_extreme_scales_leave_density_divergence_and_gradients_finite(parameterization: str, emitted: float) -> None:
    torch.manual_seed(0)
    sampler = with_outputs(0.5, emitted, parameterization)
    features = torch.randn(4, 3)
    q = sampler(features)
    z = q.rsample((3,))
    assert ((q.stddev > 0) & q.stddev.isfinite()).all()
    loss = kl(sampler, features).sum() - q.log_prob(z).sum() + z.sum()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in sampler.parameters())


def test_the_safe_range_does_not_touch_healthy_scales() -> None:
    for log_std in (-9.0, -3.0, 0.0, 3.0, 9.0):
        q = with_outputs(0.0, log_std, "log_std")(torch.zeros(1, 3))
        torch.testing.assert_close(q.stddev, torch.full((1, 2), math.exp(log_std)))


def test_a_latent_map_has_a_posterior_of_its_own_at_every_place() -> None:
    torch.manual_seed(0)
    sampler = GaussianSampler(in_shape=(3, 4, 5), latent_shape=(2, 4, 5))
    features = torch.randn(6, 3, 4, 5)
    q = sampler(features)
    assert (q.batch_shape, q.event_shape) == ((6,), (2, 4, 5))
    weight, bias = sampler.mean.weight.flatten(1), sampler.mean.bias
    torch.testing.assert_close(q.mean[:, :, 1, 3], features[:, :, 1, 3] @ weight.T + bias)
    changed = features.clone()
    changed[:, :, 1, 3] += 1
    moved = (sampler(changed).mean != q.mean).any(1)
    assert moved[:, 1, 3].all()
    assert moved.sum() == 6


def test_a_feature_map_feeds_a_latent_vector() -> None:
    q = GaussianSampler(in_shape=(3, 4, 5), latent_shape=(2,))(torch.randn(6, 3, 4, 5))
    assert (q.batch_shape, q.event_shape) == ((6,), (2,))


def test_half_precision_features_give_a_float32_posterior() -> None:
    q = GaussianSampler(in_shape=(3,), latent_shape=(2,)).bfloat16()(torch.randn(4, 3).bfloat16())
    assert q.mean.dtype == q.stddev.dtype == q.rsample().dtype == torch.float32


def test_an_unknown_parameterization_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="must be one of log_variance, log_std, but is 'log_var'; did you mean 'log_"):
        GaussianSampler(in_shape=(3,), latent_shape=(2,), parameterization="log_var")


@pytest.mark.parametrize("in_shape", [(3,), (3, 4, 4)])
def test_a_latent_map_that_the_features_cannot_give_is_refused(in_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"latents of shape \(2, 4, 5\) need an encoder that ends in a map"):
        GaussianSampler(in_shape=in_shape, latent_shape=(2, 4, 5))
