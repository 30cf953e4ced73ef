"""Residual quantisation: what every depth adds."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from vaelab.samplers import ResidualQuantizer, VectorQuantizer


def quantizer(latent_shape: tuple[int, ...] = (2,), **options) -> ResidualQuantizer:
    """z_e is the features themselves."""
    sampler = ResidualQuantizer(in_shape=latent_shape, latent_shape=latent_shape, **options)
    sampler.projection = nn.Identity()
    return sampler


def test_codes_and_penalties_of_two_depths_by_hand() -> None:
    sampler = quantizer(num_codes=2, depth=2, update="gradient").eval()
    coarse, fine = (book.vectors for book in sampler.codebooks)
    coarse.data, fine.data = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    x = torch.tensor([[5.2, 0.1], [0.3, 2.5]], requires_grad=True)
    # x_1 = (4, 0) + (1, 0) + (0.2, 0.1) and x_2 = (0, 4) + (0, -1) + (0.3, -0.5)
    q = sampler(x)
    assert q.codes.flatten(1).tolist() == [[0, 0], [1, 1]]
    assert torch.equal(q.mean, torch.tensor([[5.0, 0.0], [0.0, 3.0]]))
    first, second = torch.tensor([[1.2, 0.1], [0.3, -1.5]]), torch.tensor([[0.2, 0.1], [0.3, -0.5]])
    wanted = (first.square() + second.square()).sum(1)
    torch.testing.assert_close(q.penalties["codebook"], wanted)
    torch.testing.assert_close(q.penalties["commitment"], 0.25 * wanted)
    q.penalties["codebook"].sum().backward(retain_graph=True)
    assert x.grad is None
    torch.testing.assert_close(coarse.grad, -2 * first)
    torch.testing.assert_close(fine.grad, -2 * second)
    q.penalties["commitment"].sum().backward()
    torch.testing.assert_close(x.grad, 0.25 * 2 * (first + second))


def test_a_depth_of_one_is_plain_vector_quantisation() -> None:
    torch.manual_seed(0)
    options = dict(in_shape=(5, 2, 2), latent_shape=(4, 2, 2), num_codes=6, code_dim=2)
    residual, plain = ResidualQuantizer(**options, depth=1), VectorQuantizer(**options)
    plain.load_state_dict(residual.state_dict())
    assert residual.code_shape == plain.code_shape
    for _ in range(3):
        x = torch.randn(7, 5, 2, 2)
        torch.manual_seed(1)
        a = residual(x)
        torch.manual_seed(1)
        b = plain(x)
        assert torch.equal(a.codes, b.codes)
        assert torch.equal(a.mean, b.mean)
        torch.testing.assert_close(a.penalties, b.penalties)
    torch.testing.assert_close(residual.state_dict(), plain.state_dict())


def test_every_depth_comes_closer() -> None:
    torch.manual_seed(0)
    sampler = quantizer((8,), num_codes=16, depth=4, decay=0.8)
    for _ in range(50):
        sampler(torch.randn(200, 8))
    x = torch.randn(500, 8)
    sampler.eval()
    codes = sampler(x).codes
    z, errors = torch.zeros(()), []
    for t, book in enumerate(sampler.codebooks):
        z = z + book.embed(codes[:, t, 0, 0])
        errors.append((x - z).square().sum(1).mean().item())
    assert errors[0] < 8  # the variance of x
    assert all(after < 0.9 * before for before, after in pairwise(errors))
    torch.testing.assert_close(sampler(x).mean, z)


@pytest.mark.parametrize("latent_shape", [(6,), (6, 2, 3)])
def test_codes_stand_for_their_sum_depth_by_depth(latent_shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    sampler = quantizer(latent_shape, num_codes=5, code_dim=3, depth=3).eval()
    for t, book in enumerate(sampler.codebooks):
        book.vectors.copy_(10.0 ** (1 - t) * torch.eye(5, 3).roll(t, 0) * torch.arange(1, 6).unsqueeze(1))
    assert sampler.code_shape == (6, *(latent_shape[1:] or (1, 1)))
    x = torch.randn(4, *latent_shape)
    q = sampler(x)
    assert torch.equal(sampler.embed(q.codes), q.mean)
    assert torch.equal(sampler.codes(x), q.codes)
    deepest: Tensor = q.codes.unflatten(1, (3, 2))[:, 2]
    without = q.codes.clone()
    without.unflatten(1, (3, 2))[:, 2] = 0
    book = sampler.codebooks[2]
    difference = sampler.split(q.mean - sampler.embed(without))
    torch.testing.assert_close(difference, book.embed(deepest) - book.vectors[0], atol=1e-5, rtol=0)


def test_depths_that_share_a_codebook_have_one_and_learn_it_together() -> None:
    torch.manual_seed(0)
    shared = quantizer(num_codes=8, depth=3, shared=True, update="gradient")
    assert len(list(shared.parameters())) == 1
    assert len(list(quantizer(num_codes=8, depth=3, update="gradient").parameters())) == 3
    sum(shared(torch.randn(9, 2)).penalties.values()).sum().backward()
    assert shared.codebooks[0].vectors.grad.any()
    copy = quantizer(num_codes=8, depth=3, shared=True, update="gradient")
    copy.load_state_dict(shared.state_dict())
    x = torch.randn(9, 2)
    assert torch.equal(copy.eval()(x).mean, shared.eval()(x).mean)


def test_a_depth_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="depth must be a whole number of at least 1, but is 0"):
        quantizer(depth=0)
