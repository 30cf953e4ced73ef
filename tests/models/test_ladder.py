"""Levels of latent vectors: the flat VAE at one level, an exact linear-Gaussian hierarchy, and what depends on whom."""

import math
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal

from vaelab.likelihoods import BernoulliLikelihood, GaussianLikelihood
from vaelab.models import LadderVAE, build_ladder_vae, build_vae
from vaelab.networks import ConvDecoder, ConvEncoder, Decoder, Encoder, LabelCondition, MLPDecoder, MLPEncoder
from vaelab.objectives import ELBO, IWAE, FreeBits
from vaelab.priors import StandardNormalPrior, UniformSpherePrior, VampPrior
from vaelab.samplers import GaussianSampler

X_SHAPE = (1, 4, 3)
PARTS = dict(
    x_shape=X_SHAPE,
    encoder=partial(MLPEncoder, hidden=[8], activation="tanh"),
    decoder=partial(MLPDecoder, hidden=[8], activation="tanh"),
    prior=StandardNormalPrior,
    likelihood=BernoulliLikelihood(),
)
BOTH = pytest.mark.parametrize("inference", ["ladder", "bottom_up"])


def make(**more: object) -> LadderVAE:
    torch.manual_seed(0)
    return build_ladder_vae(**{**PARTS, "latent_dims": [4, 3, 2], "hidden": [7, 6], **more})


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *X_SHAPE, generator=torch.Generator().manual_seed(1))


# ---- one level


@BOTH
def test_one_level_is_the_flat_vae(inference: str) -> None:
    ladder = make(latent_dims=[3], hidden=[], inference=inference)
    flat = build_vae(**PARTS, latent_dim=3, sampler=GaussianSampler)
    weights = {k.replace("heads.0", "sampler"): v for k, v in ladder.state_dict().items()}
    flat.load_state_dict(weights)
    x = images()
    found, wanted = (m.elbo(x, num_samples=4) for m in map(seeded, (ladder, flat)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    torch.testing.assert_close(ladder.reconstruct(x), flat.reconstruct(x), rtol=0, atol=0)
    torch.testing.assert_close(ladder.sample(6, seed=3), flat.sample(6, seed=3), rtol=0, atol=0)


def seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(7)
    return model


# ---- a linear-Gaussian hierarchy: z_2 ~ N(0, I), z_1 = A z_2 + s e, x = W z_1 + b + sigma e

PIXELS, SIGMA = 6, 0.5
A, S = torch.tensor([1.3, -0.6], dtype=torch.float64), torch.tensor([0.5, 0.9], dtype=torch.float64)


class PixelsAsFeatures(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (1, 2, 3), (PIXELS,)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class LinearDecoder(Decoder):
    def __init__(self, loadings: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (2,), (1, 2, 3)
        self.loadings, self.offset = nn.Parameter(loadings), nn.Parameter(offset)

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.loadings.T + self.offset).unflatten(-1, self.out_shape)


def linear_gaussian(weight: Tensor, bias: Tensor, variance: Tensor) -> GaussianSampler:
    """N(weight v + bias, diag variance), given v."""
    sampler = GaussianSampler(in_shape=(weight.shape[1],), latent_shape=(2,)).double()
    mean, log_scale = sampler.mean[-1], sampler.log_scale[-1]
    with torch.no_grad():
        mean.weight.copy_(weight), mean.bias.copy_(bias)
        log_scale.weight.zero_(), log_scale.bias.copy_(variance.log())
    return sampler


class Exact(NamedTuple):
    model: LadderVAE
    x: Tensor
    log_evidence: Tensor  # (B,)


@pytest.fixture(params=["ladder", "bottom_up"])
def exact(request: pytest.FixtureRequest) -> Exact:
    """A model whose q(z_1, z_2|x) is the exact posterior: orthogonal loadings make every factor of it diagonal."""
    torch.manual_seed(0)
    norms = torch.tensor([1.5, 0.4], dtype=torch.float64)
    w = torch.linalg.qr(torch.randn(PIXELS, 2, dtype=torch.float64)).Q * norms
    b = torch.randn(PIXELS, dtype=torch.float64)
    model = LadderVAE(
        encoder=PixelsAsFeatures(),
        latent_dims=[2, 2],
        hidden=[4],
        inference=request.param,
        prior=StandardNormalPrior(latent_shape=(2,)),
        decoder=LinearDecoder(w, b),
        likelihood=GaussianLikelihood(scale="fixed", sigma=SIGMA),
    ).double()
    zero = torch.zeros(2, dtype=torch.float64)
    # u = W^T (x - b) / |w|^2 is N(z_1, v) given z_1, and all that x says of it.
    project, v = (w / norms**2).T, SIGMA**2 / norms**2
    model.up[0] = nn.Identity()
    model.down[0] = linear_gaussian(A.diag(), zero, S**2)
    if request.param == "ladder":
        model.heads[0] = linear_gaussian(project, -project @ b, v)
        top = A / (A**2 + S**2 + v)
        model.heads[1] = linear_gaussian(top[:, None] * project, -top * (project @ b), 1 - top * A)
    else:
        prior_variance = A**2 + S**2
        shrink = prior_variance / (prior_variance + v)
        model.heads[0] = linear_gaussian(shrink[:, None] * project, -shrink * (project @ b), shrink * v)
        top = A / prior_variance
        model.heads[1] = linear_gaussian(top.diag(), zero, 1 - top * A)
    x = torch.randn(5, 1, 2, 3, dtype=torch.float64)
    covariance = w @ (A**2 + S**2).diag() @ w.T + SIGMA**2 * torch.eye(PIXELS, dtype=torch.float64)
    return Exact(model, x, MultivariateNormal(b, covariance).log_prob(x.flatten(1)))


def test_every_draw_from_the_exact_posterior_weighs_the_evidence(exact: Exact) -> None:
    weights = exact.model(exact.x, num_samples=7).log_weights
    torch.testing.assert_close(weights, exact.log_evidence.expand(7, -1), rtol=0, atol=1e-10)


@torch.no_grad()
def test_of_any_other_posterior_the_elbo_is_smaller_and_more_weights_give_more(exact: Exact) -> None:
    for p in exact.model.heads.parameters():
        p.add_(0.3 * torch.randn_like(p))
    terms = exact.model(exact.x, num_samples=4000)
    log_w = terms.log_weights
    one, eight = log_w.mean(), (log_w.unflatten(0, (-1, 8)).logsumexp(1) - math.log(8)).mean()
    assert one + 0.02 < eight < exact.log_evidence.mean()
    standard_error = (log_w - terms.elbo).mean(1).std() / math.sqrt(len(log_w))
    assert (one - terms.elbo.mean()).abs() < 4 * standard_error  # KLs in closed form where there is one, or sampled
    loss, _ = IWAE(num_samples=4000)(terms, 0)
    assert eight < -loss < exact.log_evidence.mean() + 0.1


# ---- who depends on whom


@BOTH
def test_log_weights_are_those_of_the_joint_densities(inference: str) -> None:
    model, x = make(inference=inference).eval(), images()
    terms = model(x, num_samples=3)
    z3, z2, z1 = (latent.z for latent in terms.latents)
    d1 = model.encoder(x)
    d2 = model.up[0](d1) if inference == "ladder" else None
    for k in range(3):
        p3, p2, p1 = normal(torch.zeros(5, 2), torch.ones(5, 2)), model.down[1](z3[k]), model.down[0](z2[k])
        px = Independent(Bernoulli(logits=model.decoder(z1[k]), validate_args=False), 3)
        if inference == "ladder":
            q1, q2 = merged(model.heads[0](d1), p1), merged(model.heads[1](d2), p2)
            q3 = model.heads[2](model.up[1](d2))
        else:
            q1, q2 = model.heads[0](d1), model.heads[1](model.up[0](z1[k]))
            q3 = model.heads[2](model.up[1](z2[k]))
        log_p = px.log_prob(x) + p1.log_prob(z1[k]) + p2.log_prob(z2[k]) + p3.log_prob(z3[k])
        log_q = q1.log_prob(z1[k]) + q2.log_prob(z2[k]) + q3.log_prob(z3[k])
        torch.testing.assert_close(terms.log_weights[k], log_p - log_q, rtol=1e-5, atol=1e-4)


def normal(mean: Tensor, std: Tensor) -> Independent:
    return Independent(Normal(mean, std), 1)


def merged(hat: Independent, p: Independent) -> Independent:
    """Section 2.2 of the paper, literally."""
    variance = 1 / (hat.stddev**-2 + p.stddev**-2)
    return normal((hat.mean * hat.stddev**-2 + p.mean * p.stddev**-2) * variance, variance.sqrt())


@BOTH
def test_every_group_but_the_first_drawn_depends_on_the_draws(inference: str) -> None:
    latents = make(inference=inference)(images(), num_samples=3).latents
    assert [latent.z.shape for latent in latents] == [(3, 5, 2), (3, 5, 3), (3, 5, 4)]
    first, *others = latents if inference == "ladder" else latents[::-1]
    assert first.q.batch_shape == (5,)
    for latent in others:
        assert latent.q.batch_shape == (3, 5)
        assert (latent.q.mean[0] - latent.q.mean[1]).abs().min() > 1e-6
    for latent in latents[1:]:
        assert (latent.p.mean[0] - latent.p.mean[1]).abs().min() > 1e-6


@BOTH
def test_a_draw_says_nothing_of_other_examples(inference: str) -> None:
    model, x = make(inference=inference), images()
    z = model(x, num_samples=2).latents
    gradient = torch.autograd.grad(sum(latent.kl[:, 0].sum() for latent in z), model.encoder.parameters())
    alone = x.clone()
    alone[1:] = 0
    torch.manual_seed(3)
    a = model(x, num_samples=2).elbo
    torch.manual_seed(3)
    b = model(alone, num_samples=2).elbo
    torch.testing.assert_close(a[:, 0], b[:, 0])
    assert not torch.allclose(a[:, 1], b[:, 1])
    assert all(g.abs().sum() > 0 for g in gradient)


@BOTH
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_parameter_gets_a_gradient(inference: str, norm: str) -> None:
    model = make(inference=inference, norm=norm, likelihood=GaussianLikelihood())
    loss, _ = ELBO(num_samples=2)(model(images(), num_samples=2), 0)
    loss.backward()
    # A bias in front of batch normalisation has none, as anywhere.
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 1e-8]
    assert all(norm == "batch" and n.endswith("bias") for n in idle), idle


# ---- the groups below the top


class Echo(Decoder):
    """z_1 as the image."""

    def __init__(self, in_shape: tuple[int], out_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.in_shape, self.out_shape = in_shape, out_shape

    def forward(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, self.out_shape)


def echo(inference: str = "ladder") -> LadderVAE:
    """x = z_1 = A z_2 + s e."""
    model = make(
        x_shape=(1, 1, 2),
        latent_dims=[2, 2],
        hidden=[4],
        decoder=Echo,
        likelihood=GaussianLikelihood(),
        inference=inference,
    )
    model.down[0] = linear_gaussian(A.diag(), torch.ones(2), S**2).float()
    return model.eval()


def test_samples_draw_every_group_from_its_own_prior() -> None:
    x = echo().sample(20_000, seed=0).flatten(1)
    torch.testing.assert_close(x.mean(0), torch.ones(2), rtol=0, atol=0.05)
    torch.testing.assert_close(x.var(0), (A**2 + S**2).float(), rtol=0.05, atol=0)


def test_decode_takes_the_means_of_the_groups_below() -> None:
    z = torch.randn(5, 2)
    torch.testing.assert_close(echo().decode(z).flatten(1), A.float() * z + 1)


@BOTH
def test_all_of_it_runs_in_half_precision(inference: str) -> None:
    model, x = make(inference=inference).bfloat16(), images().bfloat16()
    for found in (model.elbo(x), model.sample(5), model.decode(torch.randn(5, 2)), model.reconstruct(x)):
        assert len(found) == 5
        assert found.isfinite().all()


@BOTH
def test_reconstruction_takes_the_posterior_means_of_all_groups(inference: str) -> None:
    model, x = echo(inference), torch.rand(5, 1, 1, 2)
    hat = model.heads[0](model.encoder(x))
    wanted = hat.mean
    if inference == "ladder":
        wanted = merged(hat, model.down[0](model.encode(x).mean)).mean
    torch.testing.assert_close(model.reconstruct(x, batch_size=2).flatten(1), wanted)


@BOTH
def test_encode_is_the_posterior_of_the_top_group(inference: str) -> None:
    model, x = make(inference=inference).eval(), images()
    q = model.encode(x)
    assert (q.batch_shape, q.event_shape) == ((5,), model.latent_shape)
    if inference == "ladder":
        torch.testing.assert_close(q.mean, model(x).latents[0].q.mean)
    else:
        z1 = model.heads[0](model.encoder(x)).mean
        z2 = model.heads[1](model.up[0](z1)).mean
        torch.testing.assert_close(q.mean, model.heads[2](model.up[1](z2)).mean)


# ---- objectives


def test_free_bits_are_granted_to_every_group() -> None:
    torch.manual_seed(1)
    terms = make()(images(), num_samples=2)
    kls = torch.stack([latent.kl.mean() for latent in terms.latents])
    threshold = kls.sort().values[:2].mean().item()  # one group below, two above
    loss, _ = FreeBits(per="group", free_nats=threshold)(terms, 0)
    torch.testing.assert_close(loss, kls.clamp(min=threshold).sum() - terms.log_px.mean())
    assert (kls < threshold).sum() == 1


def test_where_the_prior_is_given_a_later_draw_the_kl_is_no_closed_form() -> None:
    top, *below = make(inference="bottom_up")(images(), num_samples=3).latents
    assert top.kl_per_dim is not None
    for latent in below:
        assert latent.kl_per_dim is None
        torch.testing.assert_close(latent.kl, latent.q.log_prob(latent.z) - latent.p.log_prob(latent.z))


def test_kl_by_dimension_is_the_mean_over_the_draws_of_the_groups_above() -> None:
    for latent in make()(images(), num_samples=3).latents:
        assert latent.kl_per_dim.shape == (5, *latent.z.shape[2:])
        torch.testing.assert_close(latent.kl_per_dim.sum(1), latent.kl.mean(0))


# ---- parts


@pytest.mark.parametrize("x_shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_any_image_size_and_feature_maps(x_shape: tuple[int, int, int]) -> None:
    model = make(
        x_shape=x_shape, encoder=partial(ConvEncoder, channels=[2, 4]), decoder=partial(ConvDecoder, channels=[2, 4])
    )
    x = torch.rand(2, *x_shape)
    assert torch.isfinite(model.elbo(x, num_samples=2)).all()
    assert model.sample(3).shape == (3, *x_shape)


@BOTH
@pytest.mark.parametrize("how", ["concat", "film"])
def test_a_label_changes_posterior_and_likelihood(inference: str, how: str) -> None:
    model = make(condition=LabelCondition(num_classes=3, how=how), inference=inference)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)  # FiLM starts as the identity
    x, y = images(), torch.arange(5) % 3
    other = (y + 1) % 3
    assert (model.encode(x, y).mean - model.encode(x, other).mean).abs().min() > 1e-6
    z = torch.randn(5, 2)
    assert (model.decode(z, y) - model.decode(z, other)).abs().amax((1, 2, 3)).min() > 1e-6
    assert model(x, y, num_samples=2).elbo.shape == (2, 5)
    assert model.sample(4).shape == (4, *X_SHAPE)


@BOTH
def test_a_vampprior_is_made_of_posteriors_of_the_top_group(inference: str) -> None:
    model = make(prior=partial(VampPrior, components=4), inference=inference)
    u = model.encode(model.prior.pseudo_inputs)
    z = torch.randn(6, 1, 2)
    torch.testing.assert_close(model.prior().log_prob(z[:, 0]), u.log_prob(z).logsumexp(1) - math.log(4))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_dims": [], "hidden": []}, "latent_dims needs at least one level"),
        ({"latent_dims": [4, 3]}, r"hidden needs a width between every level and the next, 1 for latent_dims=\[4, 3\]"),
        ({"hidden": [7, 0]}, r"hidden\[1\] must be a whole number of at least 1, but is 0"),
        ({"inference": "up"}, "inference must be one of ladder, bottom_up"),
        ({"depth": 0}, "depth must be a whole number of at least 1"),
        ({"prior": UniformSpherePrior}, "UniformSpherePrior is a prior on the unit sphere"),
    ],
)
def test_impossible_choices_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**wrong)
