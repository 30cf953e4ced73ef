"""The standard normal prior."""

import math

import pytest
import torch

from vaelab.priors import StandardNormalPrior


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_log_prob_is_the_standard_normal_s(shape: tuple[int, ...]) -> None:
    p = StandardNormalPrior(latent_shape=shape)()
    assert (p.batch_shape, p.event_shape) == ((), shape)
    z = torch.randn(5, 6, *shape)
    size = math.prod(shape)
    wanted = -0.5 * (z.flatten(2).square().sum(-1) + size * math.log(2 * math.pi))
    torch.testing.assert_close(p.log_prob(z), wanted)


def test_density_integrates_to_one() -> None:
    grid = torch.linspace(-8, 8, 201, dtype=torch.float64)
    z = torch.cartesian_prod(grid, grid)
    p = StandardNormalPrior(latent_shape=(2,)).double()()
    assert p.log_prob(z).exp().sum().item() * (grid[1] - grid[0]).item() ** 2 == pytest.approx(1, abs=1e-9)


def test_draws_have_mean_zero_and_unit_covariance() -> None:
    torch.manual_seed(0)
    z = StandardNormalPrior(latent_shape=(3,))().sample((20_000,))
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=4 / 20_000**0.5)
    torch.testing.assert_close(z.T.cov(), torch.eye(3), rtol=0, atol=4 * (2 / 20_000) ** 0.5)


def test_it_follows_the_model_s_type_and_is_no_part_of_its_weights() -> None:
    prior = StandardNormalPrior(latent_shape=(3,)).double()
    assert prior().sample().dtype == torch.float64
    assert not list(prior.parameters())
    assert not prior.state_dict()
