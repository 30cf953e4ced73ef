"""The ELBO as a loss: its weight, its schedule, its means, and what it logs."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import VAE, Latent, Terms
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.objectives import ELBO
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import DeterministicSampler, GaussianSampler, Sampler
from vaelab.schedules import Constant, Linear

K, B, D = 3, 6, 2


def terms_of(log_px: Tensor, mean: Tensor, std: Tensor) -> Terms:
    """Terms of the given log p(x|z), (K, B), and posterior N(mean, std^2), (B, D)."""
    q = Independent(Normal(mean, std), 1)
    z = mean.detach().expand(len(log_px), *mean.shape)
    return Terms(log_px=log_px, latents=(Latent(z=z, q=q, p=StandardNormalPrior(latent_shape=(D,)).double()()),))


def ingredients(batch: int = B) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    log_px = -10 * torch.rand(K, batch, dtype=torch.float64)
    return log_px, torch.randn(batch, D, dtype=torch.float64), torch.rand(batch, D, dtype=torch.float64) + 0.2


def model(sampler: type[Sampler] = GaussianSampler) -> VAE:
    torch.manual_seed(0)
    return VAE(
        encoder=MLPEncoder(in_shape=(1, 3, 4), hidden=[8]),
        sampler=sampler(in_shape=(8,), latent_shape=(D,)),
        prior=StandardNormalPrior(latent_shape=(D,)),
        decoder=MLPDecoder(in_shape=(D,), out_shape=(1, 3, 4), hidden=[8]),
        likelihood=BernoulliLikelihood(),
    ).double()


# ---- the weight


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_loss_is_minus_the_weighted_bound_per_image(beta: float, weight: float) -> None:
    log_px, mean, std = ingredients()
    loss, logs = ELBO(beta=beta, schedule=Constant(value=weight))(terms_of(log_px, mean, std), 0)
    kl = 0.5 * (mean**2 + std**2 - 2 * std.log() - 1).sum(1)
    wanted = -sum(log_px[k, b] - beta * weight * kl[b] for k in range(K) for b in range(B)) / (K * B)
    torch.testing.assert_close(loss, wanted)
    assert logs["beta"] == beta * weight


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.0, 4.0])
def test_logged_bound_has_weight_one_whatever_the_loss(beta: float) -> None:
    log_px, mean, std = ingredients()
    terms = terms_of(log_px, mean, std)
    loss, logs = ELBO(beta=beta)(terms, 0)
    torch.testing.assert_close(logs["elbo"], terms.elbo.mean())
    torch.testing.assert_close(logs["elbo"], logs["reconstruction"] - logs["kl"])
    torch.testing.assert_close(logs["reconstruction"], log_px.mean())
    torch.testing.assert_close(logs["kl"], terms.kl.mean())
    torch.testing.assert_close(logs["loss"], loss)
    assert torch.isclose(logs["elbo"], -loss).item() == (beta == 1)
    assert logs["kl"] > 0 > logs["reconstruction"]


def test_weight_zero_leaves_the_reconstruction_alone() -> None:
    log_px, mean, std = ingredients()
    mean.requires_grad_()
    loss, logs = ELBO(beta=0.0)(terms_of(log_px, mean, std), 0)
    torch.testing.assert_close(loss.detach(), -log_px.mean())
    (gradient,) = torch.autograd.grad(loss, mean)
    assert not gradient.any()
    assert logs["kl"] > 0


def test_gradient_of_the_kl_scales_with_beta() -> None:
    gradients = []
    for beta in (1.0, 4.0):
        log_px, mean, std = ingredients()
        mean.requires_grad_()
        loss, _ = ELBO(beta=beta)(terms_of(log_px, mean, std), 0)
        gradients.append(torch.autograd.grad(loss, mean)[0])
    torch.testing.assert_close(gradients[0], ingredients()[1] / B)  # d KL / d mu = mu
    torch.testing.assert_close(gradients[1], 4 * gradients[0])


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 0.25), (10, 0.5), (20, 1.0), (1000, 1.0)])
def test_warm_up_follows_the_number_of_batches_seen(step: int, weight: float) -> None:
    log_px, mean, std = ingredients()
    terms = terms_of(log_px, mean, std)
    objective = ELBO(beta=3.0, schedule=Linear(epochs=2, steps_per_epoch=10))
    loss, logs = objective(terms, step)
    torch.testing.assert_close(loss, 3 * weight * terms.kl.mean() - log_px.mean())
    assert logs["beta"] == pytest.approx(3 * weight)
    torch.testing.assert_close(logs["elbo"], terms.elbo.mean())
    assert torch.equal(objective(terms, step)[0], loss)  # and on nothing else


def test_logs_hold_on_to_no_graph() -> None:
    log_px, mean, std = ingredients()
    loss, logs = ELBO()(terms_of(log_px.requires_grad_(), mean, std), 0)
    assert loss.requires_grad
    assert not any(isinstance(value, Tensor) and value.requires_grad for value in logs.values())


@pytest.mark.parametrize("beta", [-1.0, -1e-9, math.nan, math.inf])
def test_a_beta_that_is_no_weight_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta must be a number of at least 0, but is {beta}"):
        ELBO(beta=beta)


@pytest.mark.parametrize("num_samples", [0, -1, 1.5])
def test_an_impossible_number_of_draws_is_refused(num_samples: object) -> None:
    with pytest.raises(ValueError, match=f"num_samples must be a whole number of at least 1, but is {num_samples}"):
        ELBO(num_samples=num_samples)


# ---- the mean over the batch


def test_loss_of_a_batch_is_the_weighted_mean_of_its_parts() -> None:
    log_px, mean, std = ingredients()
    objective = ELBO(beta=2.0)
    whole, logs = objective(terms_of(log_px, mean, std), 0)
    for cut in (1, 2, 3):
        parts = [objective(terms_of(log_px[:, s], mean[s], std[s]), 0) for s in (slice(cut), slice(cut, None))]
        sizes = (cut, B - cut)
        torch.testing.assert_close(sum(n * loss for n, (loss, _) in zip(sizes, parts, strict=True)) / B, whole)
        for name in ("loss", "elbo", "reconstruction", "kl"):
            together = sum(n * part[name] for n, (_, part) in zip(sizes, parts, strict=True)) / B
            torch.testing.assert_close(together, logs[name])


def test_loss_ignores_order_and_repetition_of_the_batch() -> None:
    log_px, mean, std = ingredients()
    objective = ELBO(beta=2.0)
    whole, _ = objective(terms_of(log_px, mean, std), 0)
    for rows in (torch.randperm(B), torch.arange(B).repeat(2)):
        again, _ = objective(terms_of(log_px[:, rows], mean[rows], std[rows]), 0)
        torch.testing.assert_close(again, whole)


def test_loss_ignores_order_and_repetition_of_the_draws() -> None:
    log_px, mean, std = ingredients()
    whole, _ = ELBO()(terms_of(log_px, mean, std), 0)
    for draws in ([2, 0, 1], [0, 1, 2, 0, 1, 2]):
        torch.testing.assert_close(ELBO()(terms_of(log_px[draws], mean, std), 0)[0], whole)


def test_a_model_s_gradient_ignores_how_a_batch_is_split() -> None:
    autoencoder, objective = model(DeterministicSampler), ELBO()  # no noise: parts and whole see the same latents
    x = torch.rand(B, 1, 3, 4, dtype=torch.float64)
    parameters = list(autoencoder.parameters())
    whole = torch.autograd.grad(objective(autoencoder(x), 0)[0], parameters)
    parts = [torch.autograd.grad(objective(autoencoder(part), 0)[0], parameters) for part in (x[:2], x[2:])]
    for gradient, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close((2 * first + 4 * second) / B, gradient)


def test_draws_are_averaged() -> None:
    vae, x = model(), torch.rand(B, 1, 3, 4, dtype=torch.float64)
    terms = vae(x, num_samples=5)
    loss, _ = ELBO(num_samples=5)(terms, 0)
    per_draw = [
        ELBO()(Terms(log_px=terms.log_px[[k]], latents=(Latent(z=g.z[[k]], q=g.q, p=g.p),)), 0)[0]
        for g in terms.latents
        for k in range(5)
    ]
    torch.testing.assert_close(loss, torch.stack(per_draw).mean())
    assert torch.stack(per_draw).std() > 1e-4


def test_more_draws_lower_the_noise_of_the_loss_and_not_its_mean() -> None:
    vae, x = model(), torch.rand(B, 1, 3, 4, dtype=torch.float64)
    one, many = (torch.stack([ELBO()(vae(x, num_samples=k), 0)[0] for _ in range(200)]).detach() for k in (1, 16))
    assert one.std() / many.std() == pytest.approx(4, rel=0.3)
    assert abs(one.mean() - many.mean()) < 4 * one.std() / 200**0.5
