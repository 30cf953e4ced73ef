"""The densities of the open unit interval: beta and logit-normal."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Normal

from vaelab.likelihoods import BetaLikelihood, LogitNormalLikelihood
from vaelab.likelihoods.beta import MIN_SHAPE
from vaelab.likelihoods.logit_normal import LogitNormal

each = pytest.mark.parametrize("likelihood", [BetaLikelihood, LogitNormalLikelihood])


def beta(params: Tensor) -> Beta:
    mean, precision = params[..., 0, :, :].sigmoid(), params[..., 1, :, :].exp()
    return Beta(mean * precision + MIN_SHAPE, (1 - mean) * precision + MIN_SHAPE)


def log_density_of_y(likelihood: type, params: Tensor, y: Tensor) -> Tensor:
    """log f(y), written out anew."""
    if likelihood is BetaLikelihood:
        return beta(params).log_prob(y)
    normal = Normal(params[..., 0, :, :], params[..., 1, :, :].exp())
    return normal.log_prob(y.logit()) - (y * (1 - y)).log()


@each
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_level_is_scored_at_the_midpoint_of_its_bin(likelihood: type, levels: int) -> None:
    torch.manual_seed(0)
    k = torch.arange(levels, dtype=torch.float64).view(-1, 1, 1, 1)
    params = torch.randn(1, levels, 2, 1, 1, dtype=torch.float64)
    ours = likelihood(levels=levels).log_prob(params, k / (levels - 1))
    wanted = log_density_of_y(likelihood, params, (k + 0.5).squeeze(1) / levels) + math.log((levels - 1) / levels)
    torch.testing.assert_close(ours, wanted.flatten(2).sum(-1))


@each
def test_floating_point_data_counts_as_256_levels(likelihood: type) -> None:
    torch.manual_seed(0)
    params, x = torch.randn(1, 4, 2, 3, 3), torch.rand(4, 1, 3, 3)
    assert torch.equal(likelihood(levels=None).log_prob(params, x), likelihood(levels=256).log_prob(params, x))
    assert not torch.equal(likelihood(levels=17).log_prob(params, x), likelihood(levels=256).log_prob(params, x))


@each
@pytest.mark.parametrize("levels", [1, 0, -3])
def test_fewer_than_two_levels_are_refused(likelihood: type, levels: int) -> None:
    with pytest.raises(ValueError, match=f"levels must be .*at least .*but is {levels}"):
        likelihood(levels=levels)


def test_the_mean_of_a_beta_is_its_first_parameter_through_the_squeeze() -> None:
    params = torch.tensor([-1.0, 3.0]).view(1, 2, 1, 1)
    mean_of_y = torch.tensor(-1.0).sigmoid().item()
    mean = BetaLikelihood(levels=17)(params).mean.item()
    assert mean == pytest.approx((17 * mean_of_y - 0.5) / 16, abs=1e-4)  # but for the smallest shape parameters


@pytest.mark.parametrize("precision", [1e3, 2e4])
def test_a_narrow_beta_is_the_normal_that_it_tends_to(precision: float) -> None:
    """Where lgamma differences are largest, in float32: y has variance m (1 - m) / (phi + 1)."""
    params = torch.tensor([0.0, math.log(precision)]).view(1, 1, 2, 1, 1)
    x = torch.full((1, 1, 1, 1), 0.5)
    wanted = -0.5 * math.log(2 * math.pi * 0.25 / (precision + 1)) + math.log(255 / 256)
    assert BetaLikelihood(levels=256).log_prob(params, x).item() == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize(("sigma", "tolerance"), [(0.001, 1e-6), (0.5, 1e-6), (2.0, 1e-6), (6.0, 1e-6), (10.0, 1e-4)])
def test_the_mean_of_a_logit_normal_is_as_exact_as_promised(sigma: float, tolerance: float) -> None:
    mu = torch.linspace(-8, 8, 17, dtype=torch.float64)
    eps = torch.linspace(-10, 10, 20_001, dtype=torch.float64).view(-1, 1)
    wanted = ((mu + sigma * eps).sigmoid() * (-(eps**2) / 2).exp()).sum(0) * 1e-3 / math.sqrt(2 * math.pi)
    ours = LogitNormal(mu, torch.full_like(mu, sigma)).mean
    torch.testing.assert_close(ours, wanted, rtol=0, atol=tolerance)
