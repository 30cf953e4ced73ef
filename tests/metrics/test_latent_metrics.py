"""What the latents hold: exact values for Gaussians, and the identities between the parts of the KL."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.distributions.kl import kl_divergence

from vaelab.metrics.latents import AggregateParts, active_units, aggregate_parts, mean_covariance
from vaelab.samplers.codes import Quantized


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def gaussian(mean: Tensor, std: Tensor | float) -> Independent:
    return Independent(Normal(mean, torch.as_tensor(std).to(mean).expand_as(mean)), 1)


def parts_of(mean: Tensor, std: Tensor | float, *, batches: int = 1, **options: int) -> tuple[AggregateParts, Tensor]:
    """Returns the parts for q = N(mean, std^2), p = N(0, I), and the closed-form KL."""
    q, p = gaussian(mean, std), gaussian(torch.zeros(mean.shape[1]).double(), 1.0)
    z = q.sample()
    posteriors = [gaussian(m, s) for m, s in zip(mean.chunk(batches), q.stddev.chunk(batches), strict=True)]
    return aggregate_parts(z, q.log_prob(z), p.log_prob(z), posteriors, **options), kl_divergence(q, p)


def test_the_parts_telescope_to_the_kl_of_every_draw() -> None:
    mean = torch.randn(400, 3).double()
    parts, kl = parts_of(mean, torch.rand(400, 3).double() + 0.1)
    assert parts.total_correlation is not None
    assert parts.dimension_wise_kl is not None
    whole = parts.mutual_information + parts.total_correlation + parts.dimension_wise_kl
    torch.testing.assert_close(whole, parts.mutual_information + parts.marginal_kl)
    error = 4 * (whole - kl).std() / math.sqrt(400)
    assert abs(whole.mean() - kl.mean()) < error


def test_posteriors_far_apart_tell_all_images_and_equal_ones_none() -> None:
    far, _ = parts_of(100 * torch.arange(50).double().view(-1, 1).expand(-1, 2), 1.0)
    torch.testing.assert_close(far.mutual_information, torch.full((50,), math.log(50)).double())
    same, kl = parts_of(torch.full((50, 2), 0.7).double(), 0.5)
    assert same.mutual_information.abs().max() < 1e-12
    assert same.total_correlation is not None
    assert same.total_correlation.abs().max() < 1e-12
    assert abs(same.marginal_kl.mean() - kl.mean()) < 4 * same.marginal_kl.std() / math.sqrt(50)


def test_two_clusters_hold_one_bit_and_correlated_clusters_a_bit_of_total_correlation() -> None:
    sign = torch.tensor([-50.0, 50.0]).double().repeat_interleave(100).view(-1, 1)
    parts, _ = parts_of(sign.expand(-1, 2), 1.0)
    torch.testing.assert_close(parts.mutual_information.mean().item(), math.log(2))
    assert parts.total_correlation is not None
    torch.testing.assert_close(parts.total_correlation.mean().item(), math.log(2))
    independent = torch.cartesian_prod(torch.tensor([-50.0, 50.0]), torch.tensor([-50.0, 50.0])).double().repeat(50, 1)
    parts, _ = parts_of(independent, 1.0)
    torch.testing.assert_close(parts.mutual_information.mean().item(), 2 * math.log(2))
    assert parts.total_correlation is not None
    assert parts.total_correlation.abs().max() < 1e-9


def test_a_linear_gaussian_channel_has_its_mutual_information_and_total_correlation() -> None:
    # z = m + s eps with m ~ N(0, C): I = 1/2 log det(C + s^2 I) / s^2D, TC = -1/2 log(1 - r^2).
    c = torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double()
    mean = MultivariateNormal(torch.zeros(2).double(), c).sample((3000,))
    parts, _ = parts_of(mean, 0.7)
    whole = c + 0.49 * torch.eye(2).double()
    expected = 0.5 * (whole.logdet() - 2 * math.log(0.49))
    r = 0.8 / 1.49
    assert abs(parts.mutual_information.mean() - expected) < 0.06
    assert parts.total_correlation is not None
    assert abs(parts.total_correlation.mean() + 0.5 * math.log(1 - r * r)) < 0.05


def test_neither_batches_nor_memory_change_a_figure() -> None:
    mean = torch.randn(60, 3).double()
    results = []
    for batches, values in ((1, 2**22), (4, 100), (3, 1)):
        torch.manual_seed(1)
        results.append(parts_of(mean, 0.4, batches=batches, values=values)[0])
    for other in results[1:]:
        for name in ("mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl"):
            torch.testing.assert_close(getattr(other, name), getattr(results[0], name))


def test_neither_the_order_of_images_nor_that_of_dimensions_matters() -> None:
    mean = torch.randn(60, 3).double()
    q, p = gaussian(mean, 0.4), gaussian(torch.zeros(3).double(), 1.0)
    z, rows = q.sample(), torch.randperm(60)
    found = aggregate_parts(z, q.log_prob(z), p.log_prob(z), [q])
    order = torch.tensor([2, 0, 1])
    for x, m, log_q in ((z[rows], mean, q.log_prob(z)[rows]), (z[rows][:, order], mean[:, order], q.log_prob(z)[rows])):
        other = aggregate_parts(x, log_q, p.log_prob(x), [gaussian(m, 0.4)])
        for name in ("mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl"):
            torch.testing.assert_close(getattr(other, name), getattr(found, name)[rows])


def test_information_and_total_correlation_have_no_unit() -> None:
    """A shift and a scale of every dimension change log q(z), log q(z|x) and the product alike."""
    mean, shift, scale = torch.randn(60, 2).double(), torch.tensor([5.0, -3.0]), torch.tensor([0.01, 100.0])
    q, moved = gaussian(mean, 0.4), gaussian(mean * scale + shift, 0.4 * scale.double())
    z = q.sample()
    x = z * scale + shift
    one = aggregate_parts(z, q.log_prob(z), torch.zeros(60), [q])
    other = aggregate_parts(x, moved.log_prob(x), torch.zeros(60), [moved])
    torch.testing.assert_close(other.mutual_information, one.mutual_information)
    torch.testing.assert_close(other.total_correlation, one.total_correlation)


def test_a_posterior_with_correlations_has_no_total_correlation_but_a_mutual_information() -> None:
    mean, c = torch.randn(200, 2).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
    q = MultivariateNormal(mean, c)
    z = q.sample()
    parts = aggregate_parts(z, q.log_prob(z), torch.zeros(200), [q])
    direct = torch.stack([q.log_prob(draw).logsumexp(0) for draw in z]) - math.log(200)
    torch.testing.assert_close(parts.mutual_information, q.log_prob(z) - direct)
    assert parts.total_correlation is None
    assert parts.dimension_wise_kl is None


def test_the_information_in_codes_is_their_entropy() -> None:
    codes = torch.tensor([0, 0, 1, 2, 2, 2, 2, 2])
    q = Quantized(torch.eye(3)[codes], codes.view(-1, 1, 1, 1), 1)
    z = q.sample()
    parts = aggregate_parts(z, torch.zeros(8), torch.zeros(8), [q])
    share = torch.tensor([2, 1, 5]) / 8
    assert parts.mutual_information.mean().item() == pytest.approx(-(share * share.log()).sum().item())


def test_activity_is_the_variance_of_the_posterior_means() -> None:
    means = torch.randn(500, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0])
    activity = mean_covariance(means, means)
    torch.testing.assert_close(activity, means.double().var(0))
    assert active_units(activity) == 2
    assert active_units(activity, threshold=0.0) == 3


def test_activity_does_not_depend_on_order_or_shift_and_grows_with_the_square_of_the_scale() -> None:
    means, order = torch.randn(200, 3).double(), torch.randperm(200)
    activity = mean_covariance(means, means)
    torch.testing.assert_close(mean_covariance(means[order] + 7, means[order] + 7), activity)
    torch.testing.assert_close(mean_covariance(-10 * means.flip(1), -10 * means.flip(1)), 100 * activity.flip(0))


def test_constant_means_and_those_of_other_images_have_no_activity() -> None:
    constant = torch.full((50, 2), 0.3)
    assert active_units(mean_covariance(constant, constant)) == 0
    means = torch.randn(20_000, 3)
    assert mean_covariance(means, means[torch.randperm(20_000)]).abs().max() < 0.04


def test_activity_is_free_of_the_noise_of_draws_above() -> None:
    means = torch.randn(20_000, 1) * 0.5
    first, second = means + torch.randn_like(means), means + torch.randn_like(means)
    assert mean_covariance(first, second).item() == pytest.approx(0.25, abs=0.03)
    inactive = mean_covariance(torch.randn(20_000, 3), torch.randn(20_000, 3))
    assert bool((inactive.abs() < 0.04).all())


def test_wrong_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        mean_covariance(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"they are \(4, 3\) and \(4, 2\)"):
        mean_covariance(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="posterior means must be finite"):
        mean_covariance(torch.full((4, 3), math.nan), torch.zeros(4, 3))
    q = gaussian(torch.zeros(4, 2), 1.0)
    with pytest.raises(ValueError, match="there are 4, 4, 3 and 4"):
        aggregate_parts(torch.zeros(4, 2), torch.zeros(4), torch.zeros(3), [q])
    with pytest.raises(ValueError, match="at least two"):
        aggregate_parts(torch.zeros(1, 2), torch.zeros(1), torch.zeros(1), [gaussian(torch.zeros(1, 2), 1.0)])
