"""What holds for every model with a codebook: its ELBO is a bound, and what does not fit is refused."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import VAE, build_vae
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.objectives import DIPVAE, ELBO, IWAE, BetaTCVAE, FreeBits, InfoVAE, PriorLikelihood
from vaelab.priors import CodesPrior, Prior, StandardNormalPrior, VampPrior
from vaelab.samplers import FiniteScalarQuantizer, GaussianSampler, ResidualQuantizer, Sampler, VectorQuantizer

X_SHAPE = (1, 2, 3)
VQ = partial(VectorQuantizer, num_codes=4, code_dim=2)
VQ_BY_GRADIENT = partial(VectorQuantizer, num_codes=4, code_dim=2, update="gradient")
RQ = partial(ResidualQuantizer, num_codes=4, depth=2)
FSQ = partial(FiniteScalarQuantizer, levels=[3, 4])
LEARNED = partial(CodesPrior, learned=True)
EVERY = pytest.mark.parametrize("sampler", [VQ, VQ_BY_GRADIENT, RQ, FSQ], ids=["vq", "vq-gradient", "rq", "fsq"])


def model(
    sampler: Callable[..., Sampler],
    prior: Callable[..., Prior] = LEARNED,
    latent_dim: int = 2,
) -> VAE:
    torch.manual_seed(0)
    vae = build_vae(
        x_shape=X_SHAPE,
        latent_dim=latent_dim,
        encoder=partial(MLPEncoder, hidden=[8]),
        sampler=sampler,
        prior=prior,
        decoder=partial(MLPDecoder, hidden=[8]),
        likelihood=BernoulliLikelihood(),
    ).double()
    for parameter in vae.prior.parameters():
        parameter.data.normal_()
    vae(images())  # a step of training places the codebook
    return vae.eval()


def images(count: int = 9) -> Tensor:
    return (torch.rand(count, *X_SHAPE) < 0.5).double()


@EVERY
def test_the_elbo_is_log_p_of_x_less_what_the_code_leaves_open(sampler: Callable[..., Sampler]) -> None:
    """log p(x) = log sum_c P(c) p(x|c) over all codes; ELBO(x) = log p(x) + log P(c(x)|x), exactly."""
    vae = model(sampler)
    count = vae.sampler.num_codes
    choices = torch.arange(count)
    depth = vae.sampler.code_shape[0]
    codes = torch.cartesian_prod(*[choices] * depth).view(-1, depth, 1, 1)
    log_pc = vae.prior().base.log_prob(codes)
    torch.testing.assert_close(log_pc.exp().sum(), torch.ones((), dtype=torch.float64))
    x = images()
    terms = vae(x, num_samples=3)
    log_joint = torch.stack([log_pc + vae.p_x(vae.sampler.embed(codes)).log_prob(one) for one in x])  # (B, codes)
    log_px = log_joint.logsumexp(1)
    own = (terms.latents[0].q.codes.view(-1, 1, depth) == codes.view(1, -1, depth)).all(-1)
    left_open = (log_joint - log_px.unsqueeze(1))[own]
    torch.testing.assert_close(terms.elbo, (log_px + left_open).expand(3, -1))
    assert (terms.elbo < log_px).all()
    assert terms.is_bound


@EVERY
def test_all_draws_are_the_same_and_importance_weighting_gains_nothing(sampler: Callable[..., Sampler]) -> None:
    vae, x = model(sampler), images()
    terms = vae(x, num_samples=4)
    assert torch.equal(terms.latents[0].z, terms.latents[0].z[:1].expand(4, -1, -1))
    torch.testing.assert_close(terms.log_weights, terms.elbo)
    one, _ = ELBO()(vae(x), 0)
    many, _ = IWAE(num_samples=4)(terms, 0)
    torch.testing.assert_close(many, one)
    assert torch.equal(terms.latents[0].log_qz, torch.zeros(4, 9).double())


def test_a_posterior_gives_no_other_vector_a_probability() -> None:
    q = model(VQ).encode(images())
    assert torch.isneginf(q.log_prob(q.mean + 1e-6)).all()
    assert torch.equal(q.log_prob(q.mean.expand(2, -1, -1)), torch.zeros(2, 9).double())


@EVERY
def test_with_a_uniform_prior_the_kl_is_that_of_writing_the_codes_down(sampler: Callable[..., Sampler]) -> None:
    vae = model(sampler, CodesPrior, latent_dim=6)
    number = math.prod(vae.sampler.code_shape)
    assert number > 1
    torch.testing.assert_close(vae(images()).kl, torch.full((1, 9), number * math.log(vae.sampler.num_codes)).double())


def test_penalties_are_added_to_any_loss_beside_the_true_bound() -> None:
    vae, x = model(VQ_BY_GRADIENT, latent_dim=4), images()
    terms = vae(x)
    for objective in (ELBO(beta=3.0), IWAE()):
        loss, logs = objective(terms, 0)
        plain, _ = objective.weigh(terms, 0)
        penalty = terms.penalties["codebook"].mean() + terms.penalties["commitment"].mean()
        assert penalty > 0
        torch.testing.assert_close(loss, plain + penalty)
        torch.testing.assert_close(logs["elbo"], terms.elbo.mean().detach())
        torch.testing.assert_close(logs["codebook"], terms.penalties["codebook"].mean().detach())
        assert {"perplexity", "codes_used"} <= logs.keys()


@EVERY
def test_every_parameter_of_a_model_in_training_gets_a_gradient(sampler: Callable[..., Sampler]) -> None:
    vae = model(sampler, latent_dim=4).train()
    loss, _ = ELBO()(vae(images()), 0)
    loss.backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        # The levels of an untrained encoder may all be 0, and then the decoder's first layer has nothing to weigh.
        assert parameter.grad.any() or name == "decoder.layers.1.weight", name


@EVERY
def test_the_prior_of_a_moving_codebook_is_asked_about_the_codes_that_were_chosen(
    sampler: Callable[..., Sampler],
) -> None:
    vae = model(sampler).train()
    for book in getattr(vae.sampler, "codebooks", []):
        book.decay = 0.0  # every vector jumps
    terms = vae(images())
    (latent,) = terms.latents
    wanted = vae.prior().base.log_prob(latent.q.codes)
    torch.testing.assert_close(terms.elbo, terms.log_px + wanted)
    loss, _ = PriorLikelihood().weigh(terms, 0)
    torch.testing.assert_close(loss, -wanted.mean())


@EVERY
def test_samples_decode_what_the_prior_drew(sampler: Callable[..., Sampler]) -> None:
    vae = model(sampler)
    depth = vae.sampler.code_shape[0]
    every = vae.sampler.embed(
        torch.cartesian_prod(*[torch.arange(vae.sampler.num_codes)] * depth).view(-1, depth, 1, 1)
    )
    distances = torch.cdist(vae.draw_latents(50).double(), every.double())
    assert distances.min(1).values.max() < 1e-6
    assert len(distances.argmin(1).unique()) > 1
    assert vae.sample(5, seed=0).shape == (5, *X_SHAPE)
    x = images(4)
    torch.testing.assert_close(vae.reconstruct(x), vae.decode(vae(x).latents[0].z[0]))


def test_parts_on_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="draws z on a codebook; choose model/prior=codes"):
        model(VQ, StandardNormalPrior)
    with pytest.raises(ValueError, match=r"CodesPrior is a prior on a codebook.* or model/sampler=vector_quantizer"):
        model(GaussianSampler, CodesPrior)
    with pytest.raises(ValueError, match=r"VampPrior mixes posteriors that overlap.*choose model/prior=codes"):
        model(VQ, VampPrior)


def test_objectives_that_need_a_density_say_so() -> None:
    terms = model(VQ)(images())
    assert terms.latents[0].kl_per_dim is None
    for objective, message in (
        (ELBO(estimator="stl"), "estimator must be standard for a deterministic code"),
        (IWAE(estimator="dreg"), "estimator must be standard for a deterministic code"),
        (FreeBits(), "choose per=group"),
        (BetaTCVAE(train_size=9), "choose model/sampler=gaussian"),
    ):
        with pytest.raises(ValueError, match=message):
            objective(terms, 0)


@pytest.mark.parametrize("objective", [DIPVAE(), DIPVAE(variant="i"), InfoVAE(), FreeBits(per="group", free_nats=0.0)])
def test_objectives_of_the_aggregate_posterior_train_the_encoder(objective) -> None:
    vae = model(VQ, latent_dim=4)
    loss, _ = objective(vae(images()), 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad.any() for p in vae.sampler.projection.parameters())
