"""Vector quantisation by hand: codes, penalties and their gradients."""

import math

import pytest
import torch
from torch import Tensor, nn

from vaelab.samplers import ResidualQuantizer, VectorQuantizer

VECTORS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
# Three positions of one image, two channels each: nearest to vectors 0, 1 and 2.
INPUTS = torch.tensor([[0.2, 0.1], [0.9, -0.1], [0.0, 1.5]])
SQUARES = [0.05, 0.02, 0.25]


def quantizer(**options) -> VectorQuantizer:
    """z_e is the features themselves, (2, 1, 3), and the codebook is VECTORS."""
    sampler = VectorQuantizer(in_shape=(2, 1, 3), latent_shape=(2, 1, 3), num_codes=3, **options)
    sampler.projection = nn.Identity()
    sampler.codebooks[0].vectors.data.copy_(VECTORS)
    return sampler.eval()


def features() -> Tensor:
    return INPUTS.T.reshape(1, 2, 1, 3).clone().requires_grad_()


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_codes_and_penalties_by_hand(update: str) -> None:
    q = quantizer(update=update)(features())
    assert q.codes.tolist() == [[[[0, 1, 2]]]]
    assert torch.equal(q.mean, VECTORS.T.reshape(1, 2, 1, 3))
    torch.testing.assert_close(q.penalties["commitment"], torch.tensor([0.25 * sum(SQUARES)]))
    if update == "gradient":
        torch.testing.assert_close(q.penalties["codebook"], torch.tensor([sum(SQUARES)]))
    assert ("codebook" in q.penalties) == (update == "gradient")


def test_the_gradient_of_z_goes_to_the_encoder_as_it_is_and_not_to_the_codebook() -> None:
    sampler, x = quantizer(update="gradient"), features()
    weight = torch.randn(3, 1, 2, 1, 3)
    (sampler(x).rsample((3,)) * weight).sum().backward()
    assert torch.equal(x.grad, weight.sum(0))
    assert sampler.codebooks[0].vectors.grad is None


def test_gradients_of_the_penalties_by_hand() -> None:
    sampler, x = quantizer(update="gradient", commitment=0.5), features()
    penalties = sampler(x).penalties
    penalties["commitment"].sum().backward()
    torch.testing.assert_close(x.grad.view(2, 3).T, 2 * 0.5 * (INPUTS - VECTORS))
    assert sampler.codebooks[0].vectors.grad is None
    x.grad = None
    sampler(x).penalties["codebook"].sum().backward()
    torch.testing.assert_close(sampler.codebooks[0].vectors.grad, 2 * (VECTORS - INPUTS))
    assert x.grad is None


def test_vectors_that_no_input_chose_get_a_gradient_of_zero() -> None:
    sampler = quantizer(update="gradient")
    sampler(features()[..., :1].expand(1, 2, 1, 3)).penalties["codebook"].sum().backward()
    gradient = sampler.codebooks[0].vectors.grad
    assert gradient[0].any()
    assert not gradient[1:].any()


def test_groups_of_channels_and_positions_are_coded_by_themselves() -> None:
    torch.manual_seed(0)
    sampler = VectorQuantizer(in_shape=(6, 2, 2), latent_shape=(6, 2, 2), num_codes=9, code_dim=2).eval()
    sampler.projection = nn.Identity()
    nn.init.normal_(sampler.codebooks[0].vectors)
    assert sampler.code_shape == (3, 2, 2)
    x = torch.randn(4, 6, 2, 2)
    q = sampler(x)
    for group in range(3):
        for row in range(2):
            for column in range(2):
                v = x[:, 2 * group : 2 * group + 2, row, column]
                wanted = torch.cdist(v, sampler.codebooks[0].vectors).argmin(1)
                assert torch.equal(q.codes[:, group, row, column], wanted)
                chosen = sampler.codebooks[0].vectors[wanted]
                assert torch.equal(q.mean[:, 2 * group : 2 * group + 2, row, column], chosen)


@pytest.mark.parametrize(("latent_shape", "code_dim"), [((6,), 2), ((6,), None), ((6, 2, 3), 3), ((6, 2, 3), None)])
def test_codes_and_vectors_are_inverse_to_each_other(latent_shape: tuple[int, ...], code_dim: int | None) -> None:
    torch.manual_seed(0)
    in_shape = (5, *latent_shape[1:])
    sampler = VectorQuantizer(in_shape=in_shape, latent_shape=latent_shape, num_codes=11, code_dim=code_dim).eval()
    nn.init.normal_(sampler.codebooks[0].vectors)
    codes = torch.randint(11, (2, 4, *sampler.code_shape))
    z = sampler.embed(codes)
    assert z.shape == (2, 4, *latent_shape)
    assert torch.equal(sampler.codes(z), codes)
    q = sampler(torch.randn(4, *in_shape))
    assert (q.batch_shape, q.event_shape) == ((4,), latent_shape)
    assert torch.equal(sampler.embed(q.codes), q.mean)
    assert torch.equal(sampler.codes(q.mean), q.codes)


@pytest.mark.parametrize("kind", [VectorQuantizer, ResidualQuantizer])
def test_the_size_of_the_batch_does_not_matter(kind: type[VectorQuantizer]) -> None:
    torch.manual_seed(0)
    sampler = kind(in_shape=(5,), latent_shape=(6,), num_codes=4, code_dim=3, update="gradient", revive_below=0.0)
    x = torch.randn(8, 5)
    sampler(x)  # places the codebook
    once, twice = sampler(x), sampler(x.repeat(2, 1))
    for name in ("commitment", "codebook"):
        assert once.penalties[name].shape == (8,)
        assert once.penalties[name].min() > 0
        torch.testing.assert_close(twice.penalties[name].mean(), once.penalties[name].mean())
    alone = torch.cat([sampler(x[i : i + 1]).penalties["commitment"] for i in range(8)])
    torch.testing.assert_close(alone, once.penalties["commitment"])


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_every_parameter_gets_a_gradient_while_training(update: str) -> None:
    torch.manual_seed(0)
    sampler = ResidualQuantizer(in_shape=(5,), latent_shape=(6,), num_codes=4, code_dim=3, update=update, depth=2)
    q = sampler(torch.randn(8, 5))
    (q.rsample((2,)).sum() + sum(p.sum() for p in q.penalties.values())).backward()
    names = dict(sampler.named_parameters())
    assert len(names) == 2 + (2 if update == "gradient" else 0)
    for name, parameter in names.items():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_use_of_the_codebook_by_hand() -> None:
    sampler = quantizer()
    even = sampler(features()).metrics
    assert even["perplexity"].item() == pytest.approx(3)
    assert even["codes_used"].item() == 3
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).T.reshape(1, 2, 1, 3)
    uneven = sampler(x).metrics
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert uneven["perplexity"].item() == pytest.approx(math.exp(entropy))
    assert uneven["codes_used"].item() == 2


def test_half_precision_does_not_reach_the_distances() -> None:
    torch.manual_seed(0)
    sampler = VectorQuantizer(in_shape=(64,), latent_shape=(64,), num_codes=200, code_dim=4).eval()
    sampler.projection = nn.Identity()
    nn.init.normal_(sampler.codebooks[0].vectors)
    x = torch.randn(20, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = sampler(x)
    assert torch.equal(q.codes, sampler(x.float()).codes)
    assert q.mean.dtype == q.penalties["commitment"].dtype == torch.float32


def test_training_with_running_means_moves_the_codebook_to_the_clusters() -> None:
    torch.manual_seed(0)
    centers = torch.tensor([[3.0, 3.0], [-3.0, 3.0], [0.0, -4.0]])
    sampler = VectorQuantizer(in_shape=(2,), latent_shape=(2,), num_codes=3, decay=0.8)
    sampler.projection = nn.Identity()
    for _ in range(60):
        q = sampler(centers[torch.randint(3, (64,))] + 0.1 * torch.randn(64, 2))
    distances = torch.cdist(centers, sampler.codebooks[0].vectors)
    assert distances.min(1).values.max() < 0.1
    assert q.penalties["commitment"].mean() < 0.25 * 2 * 0.1**2 * 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code_dim": 4}, "code_dim must divide latent_dim=6, but is 4"),
        ({"num_codes": 0}, "num_codes must be a whole number of at least 1, but is 0"),
        ({"commitment": -0.1}, "commitment must be a number of at least 0, but is -0.1"),
    ],
)
def test_values_out_of_range_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(in_shape=(5,), latent_shape=(6,), **options)
