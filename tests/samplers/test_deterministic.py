"""The plain autoencoder's code: no noise, no density, no KL."""

import pytest
import torch
from torch.distributions import kl_divergence

from vaelab.models import Latent, Terms
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import Delta, DeterministicSampler


@pytest.mark.parametrize(("in_shape", "latent_shape"), [((4,), (2,)), ((4, 3, 5), (2,)), ((4, 3, 5), (2, 3, 5))])
def test_every_draw_is_the_code(in_shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sampler = DeterministicSampler(in_shape=in_shape, latent_shape=latent_shape)
    features = torch.randn(6, *in_shape)
    q = sampler(features)
    assert (q.batch_shape, q.event_shape) == ((6,), latent_shape)
    code = sampler.code(features)
    torch.testing.assert_close(q.rsample((3,)), code.expand(3, *code.shape))
    assert torch.equal(q.mean, code)
    assert (q.variance == 0).all()
    assert (q.stddev == 0).all()


def test_a_draw_passes_the_gradient_on() -> None:
    torch.manual_seed(0)
    sampler = DeterministicSampler(in_shape=(4,), latent_shape=(2,))
    features = torch.randn(6, 4)
    sampler(features).rsample((3,)).sum().backward()
    torch.testing.assert_close(sampler.code[1].weight.grad, 3 * features.sum(0).expand(2, 4))


@pytest.mark.parametrize("event", [(2,), (2, 3, 5)])
def test_density_and_divergence_count_as_zero(event: tuple[int, ...]) -> None:
    q, p = Delta(torch.randn(6, *event), len(event)), StandardNormalPrior(latent_shape=event)()
    assert torch.equal(q.log_prob(torch.randn(3, 6, *event)), torch.zeros(3, 6))
    assert torch.equal(kl_divergence(q, p), torch.zeros(6))


def test_the_elbo_of_an_autoencoder_is_its_reconstruction_term_and_no_bound() -> None:
    q, log_px = Delta(torch.randn(6, 2), 1), torch.randn(3, 6)
    terms = Terms(log_px=log_px, latents=(Latent(z=q.rsample((3,)), q=q, p=StandardNormalPrior(latent_shape=(2,))()),))
    assert torch.equal(terms.elbo, log_px)
    assert not terms.is_bound
