"""The terms of the bound: shapes, sums over groups, closed forms against torch.distributions and against sampling."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, Normal, StudentT, kl_divergence

from vaelab.models import Latent, Terms
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import Delta

K, B, D = 3, 4, 2


def gaussian(*shape: int) -> Independent:
    return Independent(Normal(torch.randn(shape).double(), torch.rand(shape).double() + 0.3), len(shape) - 1)


def standard_normal(*shape: int) -> Distribution:
    return StandardNormalPrior(latent_shape=shape).double()()


def latent(q: Distribution, p: Distribution, num_samples: int = K) -> Latent:
    return Latent(z=q.rsample((num_samples,)), q=q, p=p)


@pytest.mark.parametrize("event", [(D,), (D, 2, 3)])
def test_kl_to_the_standard_normal_is_the_closed_form(event: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    group = latent(gaussian(B, *event), standard_normal(*event))
    mu, variance = group.q.mean.flatten(1), group.q.variance.flatten(1)
    wanted = 0.5 * (mu**2 + variance - variance.log() - 1).sum(1)  # Kingma & Welling 2014, appendix B
    torch.testing.assert_close(group.kl, wanted.expand(K, B))
    torch.testing.assert_close(group.kl[0], kl_divergence(group.q, group.p))


@pytest.mark.parametrize("event", [(D,), (D, 2, 3)])
def test_closed_form_kl_is_the_mean_of_sampled_log_ratios(event: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    group = latent(gaussian(B, *event), standard_normal(*event), num_samples=5000)
    ratios = group.log_qz - group.log_pz
    assert ((ratios.mean(0) - group.kl[0]).abs() < 4 * ratios.std(0) / math.sqrt(len(ratios))).all()


def test_kl_of_the_prior_from_itself_is_zero_and_of_anything_else_above() -> None:
    torch.manual_seed(0)
    zeros, ones = torch.zeros(B, D).double(), torch.ones(B, D).double()
    assert (latent(Independent(Normal(zeros, ones), 1), standard_normal(D)).kl == 0).all()
    assert (latent(gaussian(B, D), standard_normal(D)).kl > 0).all()


@pytest.mark.parametrize("event", [(D,), (D, 2, 3)])
def test_kl_per_dim_adds_up_to_the_kl(event: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    group = latent(gaussian(B, *event), standard_normal(*event))
    assert group.kl_per_dim.shape == (B, *event)
    torch.testing.assert_close(group.kl_per_dim.flatten(1).sum(1), group.kl[0])


def test_kl_per_dim_is_that_of_the_marginals() -> None:
    torch.manual_seed(0)
    group = latent(gaussian(B, D), standard_normal(D))
    for j in range(D):
        marginal = Normal(group.q.mean[:, j], group.q.stddev[:, j])
        torch.testing.assert_close(group.kl_per_dim[:, j], kl_divergence(marginal, Normal(0.0, 1.0)))


def test_kl_per_dim_is_none_where_a_distribution_does_not_factorise() -> None:
    assert latent(Delta(torch.zeros(B, D), 1), standard_normal(D)).kl_per_dim is None


def test_kl_without_a_closed_form_is_the_sampled_log_ratio() -> None:
    torch.manual_seed(0)
    q = Independent(StudentT(torch.tensor(5.0), torch.randn(B, D), torch.ones(B, D)), 1)
    group = latent(q, standard_normal(D))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, group.p)
    assert group.kl.shape == (K, B)
    assert group.kl[0, 0] != group.kl[1, 0]
    torch.testing.assert_close(group.kl, q.log_prob(group.z) - group.p.log_prob(group.z))


def test_log_densities_keep_draws_and_examples_apart() -> None:
    torch.manual_seed(0)
    group = latent(gaussian(B, D), standard_normal(D))
    for k in range(K):
        for b in range(B):
            q = Normal(group.q.mean[b], group.q.stddev[b])
            torch.testing.assert_close(group.log_qz[k, b], q.log_prob(group.z[k, b]).sum())
            torch.testing.assert_close(group.log_pz[k, b], Normal(0.0, 1.0).log_prob(group.z[k, b]).sum())


def test_a_posterior_that_depends_on_the_draw_of_another_group_keeps_its_axes() -> None:
    torch.manual_seed(0)
    q = Independent(Normal(torch.randn(K, B, D).double(), torch.rand(K, B, D).double() + 0.3), 1)
    group = Latent(z=q.rsample(), q=q, p=standard_normal(D))
    wanted = 0.5 * (q.mean**2 + q.variance - q.variance.log() - 1).sum(-1)
    torch.testing.assert_close(group.kl, wanted)
    assert group.log_qz.shape == (K, B)


def two_groups() -> Terms:
    torch.manual_seed(0)
    groups = (latent(gaussian(B, D), standard_normal(D)), latent(gaussian(B, 5), standard_normal(5)))
    return Terms(log_px=-torch.rand(K, B).double(), latents=groups)


def test_groups_add_up() -> None:
    terms = two_groups()
    first, second = terms.latents
    torch.testing.assert_close(terms.kl, first.kl + second.kl)
    torch.testing.assert_close(terms.elbo, terms.log_px - first.kl - second.kl)
    joint = terms.log_px + first.log_pz + second.log_pz
    torch.testing.assert_close(terms.log_weights, joint - first.log_qz - second.log_qz)


def test_elbo_and_log_weights_agree_on_average() -> None:
    torch.manual_seed(0)
    group = latent(gaussian(B, D), standard_normal(D), num_samples=5000)
    terms = Terms(log_px=torch.zeros(5000, B).double(), latents=(group,))
    difference = terms.elbo - terms.log_weights
    assert (difference.std(0) > 0.1).all()
    assert (difference.mean(0).abs() < 4 * difference.std(0) / math.sqrt(5000)).all()


def test_terms_are_frozen() -> None:
    terms = two_groups()
    with pytest.raises(dataclasses.FrozenInstanceError):
        terms.log_px = torch.zeros(K, B)
    with pytest.raises(dataclasses.FrozenInstanceError):
        terms.latents[0].z = torch.zeros(K, B, D)


def test_densities_are_computed_once_and_only_when_read() -> None:
    calls = []

    class Counting(Laplace):
        def log_prob(self, value: Tensor) -> Tensor:
            calls.append(value)
            return super().log_prob(value)

    q = Independent(Counting(torch.zeros(B, D), torch.ones(B, D)), 1)
    terms = Terms(log_px=torch.zeros(K, B), latents=(latent(q, standard_normal(D)),))
    _ = terms.elbo
    assert not calls  # Laplace against normal has a closed form
    _ = terms.log_weights, terms.log_weights
    assert len(calls) == 1


def test_only_a_posterior_with_a_density_bounds_the_evidence() -> None:
    assert two_groups().is_bound
    point = latent(Delta(torch.zeros(B, D), 1), standard_normal(D))
    assert not Terms(log_px=torch.zeros(K, B), latents=(point,)).is_bound
    assert not Terms(log_px=torch.zeros(K, B), latents=(*two_groups().latents, point)).is_bound
