"""Mixtures: density, draws and responsibilities."""

import pytest
import torch
from torch.distributions import Independent, MixtureSameFamily, Normal

from vaelab.distributions import Mixture
from vaelab.distributions.gaussian import log_prob_of_each

MEANS = torch.tensor([[-4.0, 0.0], [0.0, 3.0], [5.0, -1.0]], dtype=torch.float64)
STDS = torch.tensor([[0.5, 1.0], [0.3, 0.3], [1.0, 2.0]], dtype=torch.float64)
LOGITS = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)


def mixture() -> Mixture:
    return Mixture(LOGITS, Independent(Normal(MEANS, STDS), 1))


def test_density_is_the_weighted_sum_for_any_leading_shape() -> None:
    torch.manual_seed(0)
    z = 3 * torch.randn(4, 5, 2, dtype=torch.float64)
    parts = [Normal(m, s).log_prob(z).sum(-1) + w for m, s, w in zip(MEANS, STDS, LOGITS.log_softmax(0), strict=True)]
    torch.testing.assert_close(mixture().log_prob(z), torch.stack(parts).logsumexp(0))


def test_responsibilities_are_bayes_rule() -> None:
    torch.manual_seed(0)
    z = 3 * torch.randn(4, 5, 2, dtype=torch.float64)
    r = mixture().responsibilities(z)
    assert r.shape == (4, 5, 3)
    torch.testing.assert_close(r.sum(-1), torch.ones(4, 5, dtype=torch.float64))
    joint = LOGITS.softmax(0)[1] * Normal(MEANS[1], STDS[1]).log_prob(z).sum(-1).exp()
    torch.testing.assert_close(r[..., 1], joint / mixture().log_prob(z).exp())
    assert mixture().responsibilities(MEANS).argmax(-1).tolist() == [0, 1, 2]


def test_draws_have_the_moments_of_the_mixture() -> None:
    torch.manual_seed(0)
    d = mixture()
    z = d.sample((40_000,))
    torch.testing.assert_close(z.mean(0), d.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(z.var(0), d.variance, atol=0, rtol=0.05)
    shares = d.responsibilities(z).mean(0)
    torch.testing.assert_close(shares, LOGITS.softmax(0), atol=0.01, rtol=0)


def test_draws_are_in_random_order_and_of_any_shape() -> None:
    torch.manual_seed(0)
    z = mixture().sample((100, 50))
    assert z.shape == (100, 50, 2)
    per_row = (z[..., 0] < -2).double().mean(1)  # the share of the first component
    assert per_row.std() < 0.12
    assert mixture().sample().shape == (2,)


def test_torchs_own_draws_agree_in_distribution() -> None:
    torch.manual_seed(0)
    theirs = MixtureSameFamily(mixture().mixture_distribution, mixture().component_distribution).sample((20_000,))
    mine = mixture().sample((20_000,))
    levels = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    gap = (mine[:, 1].quantile(levels) - theirs[:, 1].quantile(levels)).abs()
    assert gap.max() < 0.15


@pytest.mark.parametrize("event", [(3,), (2, 2, 2)])
def test_gaussian_components_are_scored_as_well_where_they_are_narrow(event: tuple[int, ...]) -> None:
    """Two matrix products of large numbers that nearly cancel: the densities, far away and close by, are kept."""
    torch.manual_seed(0)
    means, stds = torch.randn(5, *event), torch.logspace(-4, 1, 5).view(5, *[1] * len(event)).expand(5, *event)
    parts = Independent(Normal(means, stds), len(event))
    z = torch.cat([means + stds * torch.randn(5, *event), torch.randn(4, *event)]).unsqueeze(0)  # (1, 9, *event)
    exact = Independent(Normal(means.double(), stds.double()), len(event)).log_prob(z.unsqueeze(2).double())
    found = log_prob_of_each(parts, z)
    assert found.shape == (1, 9, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=2e-7)


def test_gaussian_components_get_their_gradients() -> None:
    mean = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    log_std = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    score = lambda m, s, z: log_prob_of_each(Independent(Normal(m, s.exp()), 1), z)  # noqa: E731
    assert torch.autograd.gradcheck(score, (mean, log_std, z))
