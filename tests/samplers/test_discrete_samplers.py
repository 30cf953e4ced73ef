"""Categorical and Bernoulli posteriors: exact draws, surrogate gradients, honest bounds."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from vaelab.models import Latent
from vaelab.priors import BernoulliPrior, CategoricalPrior
from vaelab.samplers import BernoulliSampler, CategoricalSampler
from vaelab.samplers.bernoulli import StraightThroughBernoulli
from vaelab.samplers.categorical import StraightThroughOneHot

CLASSES = 4


def test_draws_are_exactly_one_hot_per_variable() -> None:
    torch.manual_seed(0)
    q = CategoricalSampler(in_shape=(5,), latent_shape=(12,), classes=CLASSES)(torch.randn(3, 5))
    z = q.rsample((200,)).unflatten(-1, (3, CLASSES))
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(z.sum(-1), torch.ones(200, 3, 3))


def test_shares_of_the_classes_are_their_probabilities() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5], [0.0, 0.0, 0.0, 3.0]])
    z = StraightThroughOneHot(0.7, logits).rsample((20_000,))
    torch.testing.assert_close(z.mean(0), logits.softmax(-1), atol=0.015, rtol=0)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_gradient_is_that_of_the_gumbel_softmax_with_the_same_noise(temperature: float) -> None:
    logits = torch.randn(2, CLASSES, dtype=torch.float64).log_softmax(-1).requires_grad_()
    weight = torch.randn(5, 2, CLASSES, dtype=torch.float64)
    torch.manual_seed(0)
    (grad,) = torch.autograd.grad((StraightThroughOneHot(temperature, logits).rsample((5,)) * weight).sum(), logits)
    torch.manual_seed(0)
    gumbel = -(-torch.rand(5, 2, CLASSES, dtype=torch.float64).log()).log()
    soft = ((logits + gumbel) / temperature).softmax(-1)
    (expected,) = torch.autograd.grad((soft * weight).sum(), logits)
    torch.testing.assert_close(grad, expected - expected.sum(-1, keepdim=True) * logits.softmax(-1))


def test_binary_gradient_is_that_of_the_logistic_sigmoid_with_the_same_noise() -> None:
    logits = torch.randn(3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 3, dtype=torch.float64)
    torch.manual_seed(0)
    (grad,) = torch.autograd.grad((StraightThroughBernoulli(0.6, logits).rsample((6,)) * weight).sum(), logits)
    torch.manual_seed(0)
    soft = ((logits + torch.rand(6, 3, dtype=torch.float64).logit()) / 0.6).sigmoid()
    (expected,) = torch.autograd.grad((soft * weight).sum(), logits)
    torch.testing.assert_close(grad, expected)


def test_binary_draws_are_exact_and_have_their_probability() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, 0.0, 1.5])
    z = StraightThroughBernoulli(0.5, logits).rsample((20_000,))
    assert set(z.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(z.mean(0), logits.sigmoid(), atol=0.015, rtol=0)


def likelihood(z: Tensor) -> Tensor:
    """Some log p(x|z) of one fixed x."""
    weight = torch.linspace(-2, 2, z.shape[-1], dtype=z.dtype)
    return -((z @ weight).square())


def test_categorical_elbo_is_that_of_the_discrete_model_and_bounds_its_evidence() -> None:
    torch.manual_seed(0)
    sampler = CategoricalSampler(in_shape=(5,), latent_shape=(6,), classes=3).double()
    prior = CategoricalPrior(latent_shape=(6,), classes=3).double()
    q, p = sampler(2 * torch.randn(1, 5, dtype=torch.float64)), prior()
    eye = torch.eye(3, dtype=torch.float64)
    states = torch.stack([torch.cat([eye[i], eye[j]]) for i, j in itertools.product(range(3), repeat=2)])
    log_q, log_p = q.log_prob(states.unsqueeze(1)).squeeze(1), p.log_prob(states)
    torch.testing.assert_close(log_q.exp().sum(), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(log_p.exp(), torch.full((9,), 1 / 9, dtype=torch.float64))
    exact = (log_q.exp() * (likelihood(states) + log_p - log_q)).sum()
    z = q.rsample((20_000,))
    latent = Latent(z=z, q=q, p=p)
    estimate = likelihood(z).mean() - latent.kl.mean()
    assert estimate.item() == pytest.approx(exact.item(), abs=0.05)
    assert (likelihood(z) + latent.log_pz - latent.log_qz).mean().item() == pytest.approx(exact.item(), abs=0.05)
    evidence = (log_p + likelihood(states)).logsumexp(0)
    assert exact < evidence
    iwae = (likelihood(z) + latent.log_pz - latent.log_qz).logsumexp(0) - math.log(len(z))
    assert iwae.item() == pytest.approx(evidence.item(), abs=0.05)


def test_relaxed_bound_uses_the_densities_and_bounds_the_evidence_of_the_relaxed_model() -> None:
    torch.manual_seed(0)
    sampler = CategoricalSampler(
        in_shape=(5,), latent_shape=(2,), classes=2, straight_through=False, temperature=0.7
    ).double()
    q = sampler(torch.randn(1, 5, dtype=torch.float64))
    p = CategoricalPrior(latent_shape=(2,), classes=2, temperature=0.5).double()()
    a = torch.linspace(-60, 60, 20_001, dtype=torch.float64)
    grid = torch.stack([a.sigmoid(), (-a).sigmoid()], -1)
    joint = (p.log_prob(grid) + likelihood(grid)).exp() * grid.prod(-1)
    evidence = torch.trapezoid(joint, a).log()
    z = q.rsample((20_000,))
    latent = Latent(z=z, q=q, p=p)
    torch.testing.assert_close(latent.kl, latent.log_qz - latent.log_pz)
    assert (likelihood(z) - latent.kl).mean() < evidence
    iwae = (likelihood(z) - latent.kl).logsumexp(0) - math.log(len(z))
    assert iwae.item() == pytest.approx(evidence.item(), abs=0.05)


def test_sampled_kl_passes_a_gradient_through_the_straight_through_draws() -> None:
    """Without it, a KL estimated from draws would teach the encoder nothing: the score alone has mean zero."""
    torch.manual_seed(0)
    logits = torch.tensor([[1.5, 0.0, -0.5]], dtype=torch.float64, requires_grad=True)
    q = StraightThroughOneHot(0.5, logits)
    z = q.rsample((20_000,))
    (grad,) = torch.autograd.grad(q.log_prob(z).mean(), logits)
    log_pi = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((log_pi.exp() * log_pi).sum(), logits)
    assert torch.cosine_similarity(grad, exact).item() > 0.9
    bits = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    binary = StraightThroughBernoulli(0.5, bits)
    (grad,) = torch.autograd.grad(binary.log_prob(binary.rsample((20_000,))).mean(), bits)
    assert grad.item() > 0.1  # d/dl of -H(Bernoulli(l)) = l pi (1 - pi) > 0


def test_binary_kl_is_closed_and_falls_apart_into_dimensions() -> None:
    torch.manual_seed(0)
    q = BernoulliSampler(in_shape=(5,), latent_shape=(3,))(2 * torch.randn(4, 5))
    assert isinstance(q, Independent)
    prior = BernoulliPrior(latent_shape=(3,), learned=True)
    torch.nn.init.normal_(prior.logits)
    latent = Latent(z=q.rsample((2,)), q=q, p=prior())
    pi, rho = q.mean, prior.logits.sigmoid()
    expected = pi * (pi / rho).log() + (1 - pi) * ((1 - pi) / (1 - rho)).log()
    torch.testing.assert_close(latent.kl_per_dim, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(latent.kl[0], expected.sum(-1), atol=1e-5, rtol=1e-4)


def test_categorical_map_has_its_variables_along_the_channels() -> None:
    torch.manual_seed(0)
    q = CategoricalSampler(in_shape=(5, 2, 3), latent_shape=(6, 2, 3), classes=3)(torch.randn(4, 5, 2, 3))
    z = q.rsample((7,))
    assert torch.equal(z.unflatten(2, (2, 3)).sum(3), torch.ones(7, 4, 2, 2, 3))
    torch.testing.assert_close(q.mean.unflatten(1, (2, 3)).sum(2), torch.ones(4, 2, 2, 3))
    p = CategoricalPrior(latent_shape=(6, 2, 3), classes=3)()
    torch.testing.assert_close(p.log_prob(z), torch.full((7, 4), -12 * math.log(3)))
    assert kl_divergence(q, p).shape == (4,)


@pytest.mark.parametrize("classes", [1, 5])
def test_classes_that_do_not_divide_the_latents_are_refused(classes: int) -> None:
    with pytest.raises(ValueError, match=rf"classes must be at least 2 and divide latent_dim=12, but is {classes}"):
        CategoricalSampler(in_shape=(5,), latent_shape=(12,), classes=classes)
    with pytest.raises(ValueError, match=rf"classes must be at least 2 and divide latent_dim=12, but is {classes}"):
        CategoricalPrior(latent_shape=(12,), classes=classes)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf])
def test_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        CategoricalSampler(in_shape=(5,), latent_shape=(10,), temperature=temperature)
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        BernoulliSampler(in_shape=(5,), latent_shape=(10,), temperature=temperature)
    with pytest.raises(ValueError, match="temperature must be a number above 0"):
        CategoricalPrior(latent_shape=(10,), temperature=temperature)
