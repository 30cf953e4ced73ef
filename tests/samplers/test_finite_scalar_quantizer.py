"""Finite scalar quantisation: the levels, their numbers and the gradient through the rounding."""

import pytest
import torch
from torch import nn

from vaelab.samplers import FiniteScalarQuantizer

LEVELS = [4, 3, 5]


def quantizer(latent_shape: tuple[int, ...] = (3,), levels: list[int] = LEVELS) -> FiniteScalarQuantizer:
    """z_e is the features themselves."""
    sampler = FiniteScalarQuantizer(in_shape=latent_shape, latent_shape=latent_shape, levels=levels)
    sampler.projection = nn.Identity()
    return sampler


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        (3, [-1, 0, 1]),
        (4, [-1, -0.5, 0, 0.5]),
        (5, [-1, -0.5, 0, 0.5, 1]),
        (8, [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]),
    ],
)
def test_every_level_is_reached_and_no_other(levels: int, wanted: list[float]) -> None:
    x = torch.linspace(-12, 12, 4001).unsqueeze(1)
    z = quantizer((1,), [levels])(x).mean.flatten()
    assert z.unique().tolist() == wanted
    assert (z.diff() >= 0).all()
    assert quantizer((1,), [levels])(torch.zeros(1, 1)).mean.item() == 0


def test_the_bound_by_hand() -> None:
    sampler = quantizer()
    h = 0.999 * torch.tensor([1.5, 1.0, 2.0])
    f = sampler.bound(torch.tensor([0.7, 0.7, -0.4]))
    torch.testing.assert_close(f[1:], h[1:] * torch.tensor([0.7, -0.4]).tanh())
    torch.testing.assert_close(f[0], h[0] * (0.7 + (0.5 / h[0]).atanh()).tanh() - 0.5)
    torch.testing.assert_close(sampler.bound(torch.zeros(3)), torch.zeros(3))
    # f = (0.67, 0.60, -0.76) is rounded to (1, 1, -1); floor(L / 2) is (2, 1, 2).
    assert sampler(torch.tensor([[0.7, 0.7, -0.4]])).mean.tolist() == [[0.5, 1.0, -0.5]]


def test_the_gradient_of_the_rounding_is_one() -> None:
    sampler, x = quantizer(), torch.tensor([[0.7, -0.3, 1.1]], requires_grad=True)
    q = sampler(x)
    weight = torch.randn(1, 3)
    (gradient,) = torch.autograd.grad((q.rsample() * weight).sum(), x)
    (wanted,) = torch.autograd.grad((sampler.bound(x) / torch.tensor([2.0, 1.0, 2.0]) * weight).sum(), x)
    torch.testing.assert_close(gradient, wanted)
    assert not q.penalties


@pytest.mark.parametrize("latent_shape", [(3,), (6, 2, 1)])
def test_codes_count_all_combinations_of_levels_and_can_be_undone(latent_shape: tuple[int, ...]) -> None:
    sampler = quantizer(latent_shape)
    assert sampler.num_codes == 60
    assert sampler.code_shape == (latent_shape[0] // 3, *(latent_shape[1:] or (1, 1)))
    codes = torch.arange(60).view(60, 1, 1, 1).expand(60, *sampler.code_shape)
    z = sampler.embed(codes)
    assert z.shape == (60, *latent_shape)
    assert len(sampler.split(z).flatten(1, 3)[:, :3].unique(dim=0)) == 60
    assert torch.equal(sampler.codes(z), codes)
    torch.manual_seed(0)
    q = sampler(3 * torch.randn(5000, *latent_shape))
    assert torch.equal(sampler.embed(q.codes), q.mean)
    assert len(q.codes.unique()) == 60


def test_a_training_step_reaches_the_encoder_only() -> None:
    torch.manual_seed(0)
    sampler = FiniteScalarQuantizer(in_shape=(5,), latent_shape=(6,), levels=LEVELS)
    before = {name: value.clone() for name, value in sampler.state_dict().items()}
    sampler(torch.randn(9, 5)).rsample().square().sum().backward()
    assert all(p.grad.any() for p in sampler.parameters())
    assert sampler.state_dict().keys() == before.keys() == {"projection.1.weight", "projection.1.bias"}


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([8, 2], r"levels must be at least 3 for every channel, but are \[8, 2\]; choose model/sampler=bernoulli"),
        ([], "levels must be at least 3"),
        (
            [8, 5, 5, 5],
            r"levels must be as many as divide latent_dim=6, but are \[8, 5, 5, 5\]; choose model.latent_dim=4",
        ),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FiniteScalarQuantizer(in_shape=(5,), latent_shape=(6,), levels=levels)
