"""Priors over the codes of a codebook."""

import copy
import math

import pytest
import torch
from torch import nn

from vaelab.distributions import Codebook
from vaelab.priors import CodesPrior
from vaelab.samplers import FiniteScalarQuantizer, GaussianSampler, ResidualQuantizer, VectorQuantizer


def codebook(**options) -> VectorQuantizer:
    torch.manual_seed(0)
    sampler = VectorQuantizer(in_shape=(5, 1, 2), latent_shape=(2, 1, 2), num_codes=3, **options).eval()
    nn.init.normal_(sampler.codebooks[0].vectors)
    return sampler


def attached(sampler: nn.Module, learned: bool = False) -> CodesPrior:
    prior = CodesPrior(latent_shape=(2, 1, 2), learned=learned)
    prior.attach(lambda x: NotImplemented, (1, 2, 2), sampler)
    return prior


@pytest.mark.parametrize("kind", [VectorQuantizer, ResidualQuantizer, FiniteScalarQuantizer])
def test_quantisers_are_codebooks_and_other_samplers_are_not(kind) -> None:
    assert isinstance(kind(in_shape=(5,), latent_shape=(4,)), Codebook)
    assert not isinstance(GaussianSampler(in_shape=(5,), latent_shape=(4,)), Codebook)


def test_a_uniform_prior_gives_all_codes_one_probability_and_no_parameters() -> None:
    sampler = codebook()
    prior = attached(sampler)
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(9, 1, 1, 2)
    p = prior()
    assert (p.batch_shape, p.event_shape) == ((), (2, 1, 2))
    torch.testing.assert_close(p.log_prob(sampler.embed(codes)), torch.full((9,), -2 * math.log(3)))
    assert not list(prior.parameters())
    assert not prior.state_dict()


def test_a_learned_prior_starts_uniform_and_then_knows_every_code() -> None:
    sampler = codebook()
    prior = attached(sampler, learned=True)
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(9, 1, 1, 2)
    z = sampler.embed(codes)
    torch.testing.assert_close(prior().log_prob(z), attached(sampler)().log_prob(z))
    nn.init.normal_(prior.logits)
    log_p = prior.logits.log_softmax(-1)
    wanted = log_p[0, 0, 0, codes[:, 0, 0, 0]] + log_p[0, 0, 1, codes[:, 0, 0, 1]]
    torch.testing.assert_close(prior().log_prob(z), wanted)
    torch.testing.assert_close(prior().log_prob(z).exp().sum(), torch.tensor(1.0))


def test_draws_have_the_frequencies_of_their_codes() -> None:
    sampler = codebook()
    prior = attached(sampler, learned=True)
    nn.init.normal_(prior.logits)
    z = prior().sample((200, 50))
    assert z.shape == (200, 50, 2, 1, 2)
    assert not z.requires_grad
    codes = sampler.codes(z)
    shares = torch.stack([(codes[..., 0, 0, i] == k).float().mean() for i in range(2) for k in range(3)])
    wanted = prior.logits.softmax(-1).flatten()
    assert ((shares - wanted).abs() < 5 * (wanted * (1 - wanted) / 10_000).sqrt()).all()


def test_a_prior_starts_from_the_codes_of_a_trained_model() -> None:
    sampler = codebook()
    prior = attached(sampler, learned=True)
    codes = torch.tensor([[0, 2], [0, 2], [1, 2], [0, 2]]).view(4, 1, 1, 2)
    prior.initialize(sampler.embed(codes))
    wanted = torch.tensor([[4.0, 2.0, 1.0], [1.0, 1.0, 5.0]]) / 7
    torch.testing.assert_close(prior.logits.softmax(-1)[0, 0], wanted)
    uniform = attached(sampler)
    uniform.initialize(sampler.embed(codes))
    assert not uniform.logits.any()


def test_the_codebook_stays_the_samplers_own() -> None:
    pair = nn.ModuleDict({"sampler": codebook(update="gradient"), "prior": CodesPrior(latent_shape=(2, 1, 2))})
    pair["prior"].attach(lambda x: NotImplemented, (1, 2, 2), pair["sampler"])
    assert all(name.startswith("sampler.") for name in pair.state_dict())
    twin = copy.deepcopy(pair)
    before = twin["prior"]().sample((20,))
    pair["sampler"].codebooks[0].vectors.data += 100
    assert before.abs().max() < 50
    assert twin["prior"]().sample((20,)).abs().max() < 50
    assert pair["prior"]().sample((20,)).min() > 50


def test_a_prior_without_a_codebook_is_refused() -> None:
    prior = CodesPrior(latent_shape=(4,))
    with pytest.raises(ValueError, match=r"call attach\(posterior, x_shape, sampler\) first"):
        prior()
    with pytest.raises(ValueError, match="choose model/sampler=vector_quantizer"):
        prior.attach(lambda x: NotImplemented, (1, 2, 2), GaussianSampler(in_shape=(5,), latent_shape=(4,)))
