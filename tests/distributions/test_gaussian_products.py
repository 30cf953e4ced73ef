"""Products of diagonal Gaussians."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vaelab.distributions.gaussian import diagonal_gaussian, product_of_gaussians, unflatten_batch


def test_precisions_add_up_and_means_are_averaged_by_precision() -> None:
    a = diagonal_gaussian(torch.tensor([1.0, -2.0]), torch.tensor([1.0, 2.0]), 1)
    b = diagonal_gaussian(torch.tensor([4.0, 0.0]), torch.tensor([0.5, 2.0]), 1)
    q = product_of_gaussians(a, b)
    torch.testing.assert_close(q.variance, torch.tensor([1 / (1 + 4), 1 / (1 / 4 + 1 / 4)]))
    torch.testing.assert_close(q.mean, torch.tensor([(1 + 4 * 4) / 5, -1.0]))


def test_the_product_is_proportional_to_both_densities_and_integrates_to_one() -> None:
    a = diagonal_gaussian(torch.tensor([0.3]), torch.tensor([0.8]), 1)
    b = diagonal_gaussian(torch.tensor([[-0.5], [2.0]]), torch.tensor([[1.3], [0.2]]), 1)  # batch shapes broadcast
    q = product_of_gaussians(a, b)
    z = torch.linspace(-9, 9, 20001).view(-1, 1, 1)
    unnormalised = (a.log_prob(z) + b.log_prob(z)).exp()
    wanted = unnormalised / torch.trapezoid(unnormalised, z[:, :, 0], dim=0)
    torch.testing.assert_close(q.log_prob(z).exp(), wanted, atol=1e-4, rtol=1e-3)
    assert q.batch_shape == (2,)


def test_a_vague_factor_changes_nothing() -> None:
    a = diagonal_gaussian(torch.tensor([0.3, 7.0]), torch.tensor([0.8, 0.01]), 1)
    vague = diagonal_gaussian(torch.zeros(2), torch.full((2,), 1e4), 1)
    assert kl_divergence(product_of_gaussians(a, vague), a) < 1e-6


@pytest.mark.parametrize("event_dims", [1, 3])
def test_unflattening_splits_draws_from_examples(event_dims: int) -> None:
    mean, std = torch.randn(6, *[2] * event_dims), torch.rand(6, *[2] * event_dims) + 0.1
    q = unflatten_batch(diagonal_gaussian(mean, std, event_dims), (3, 2))
    assert (q.batch_shape, q.event_shape) == ((3, 2), mean.shape[1:])
    z = torch.randn_like(mean)
    wanted = Normal(mean, std).log_prob(z).flatten(1).sum(1).view(3, 2)
    torch.testing.assert_close(q.log_prob(z.unflatten(0, (3, 2))), wanted)
