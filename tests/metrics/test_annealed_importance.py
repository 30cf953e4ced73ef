"""Annealed importance sampling against a model whose evidence is known."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelab.likelihoods import GaussianLikelihood
from vaelab.metrics import annealed_importance
from vaelab.metrics.annealed_importance import (
    PILOTS,
    annealed_log_weights,
    annealed_weights,
    bidirectional_bounds,
    inverse_temperatures,
    log_mean,
)
from vaelab.metrics.importance import importance_bound
from vaelab.models import VAE
from vaelab.networks import Decoder, Encoder
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import DeterministicSampler, GaussianSampler, VonMisesFisherSampler

PIXELS, LATENTS, BATCH = 6, 2, 4
QUICK = {"chains": 64, "steps": 150, "leapfrogs": 5}


class PixelsAsFeatures(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (1, 2, 3), (PIXELS,)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class LinearDecoder(Decoder):
    def __init__(self) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (LATENTS,), (1, 2, 3)
        self.linear = nn.Linear(LATENTS, PIXELS)
        nn.init.normal_(self.linear.weight)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(z).unflatten(-1, self.out_shape)


class Known(NamedTuple):
    model: VAE
    x: Tensor
    log_evidence: Tensor


def linear_model(sampler=GaussianSampler) -> VAE:
    """p(x) is Gaussian, and the encoder was never trained: its posterior is a bad one."""
    torch.manual_seed(1)
    return VAE(
        encoder=PixelsAsFeatures(),
        sampler=sampler(in_shape=(PIXELS,), latent_shape=(LATENTS,)),
        prior=StandardNormalPrior(latent_shape=(LATENTS,)),
        decoder=LinearDecoder(),
        likelihood=GaussianLikelihood(scale="fixed", sigma=0.3),
    ).double()


def known(model: VAE) -> Known:
    w, b = model.decoder.linear.weight.detach(), model.decoder.linear.bias.detach()
    evidence = MultivariateNormal(b, w @ w.T + 0.3**2 * torch.eye(PIXELS).double())
    x = evidence.sample((BATCH,))
    return Known(model, x.unflatten(1, (1, 2, 3)), evidence.log_prob(x))


@pytest.fixture
def linear() -> Known:
    return known(linear_model())


def standard_errors(log_weights: Tensor) -> Tensor:
    """Of `log_mean`, (B,), by the delta method."""
    weights = (log_weights - log_weights.amax(0)).exp()
    return weights.std(0) / weights.mean(0) / len(weights) ** 0.5


@pytest.mark.parametrize("start", ["posterior", "prior"])
def test_the_exact_evidence_of_a_linear_gaussian_model(linear, start):
    log_weights = annealed_weights(linear.model, linear.x, start=start, **{**QUICK, "chains": 400})
    errors = standard_errors(log_weights)
    assert (errors < 0.25).all()
    assert ((log_mean(log_weights) - linear.log_evidence).abs() < 4 * errors).all()


def test_a_posterior_that_is_narrow_and_elsewhere_spoils_the_bound_but_not_annealing(linear):
    with torch.no_grad():
        for parameter in linear.model.sampler.parameters():
            parameter.zero_()
        linear.model.sampler.log_scale[1].bias.fill_(-4)
    decodings = QUICK["chains"] * QUICK["steps"] * QUICK["leapfrogs"]
    bound = importance_bound(linear.model, linear.x, k=decodings)
    annealed = log_mean(annealed_weights(linear.model, linear.x, **QUICK))
    assert (bound - linear.log_evidence).mean() < -5
    assert (annealed - linear.log_evidence).mean().abs() < 1


def test_the_exact_posterior_has_weights_without_variance_whatever_the_steps(linear):
    """Both ends are proportional, and so is everything between."""
    w, x = linear.model.decoder.linear, linear.x.flatten(1)
    covariance = torch.linalg.inv(torch.eye(LATENTS) + w.weight.T @ w.weight / 0.3**2)
    posterior = MultivariateNormal((x - w.bias) @ w.weight @ covariance / 0.3**2, covariance)

    def joint(z):
        p = Independent(Normal(w(z), 0.3), 1)
        return linear.model.prior().log_prob(z) + p.log_prob(x)

    z = posterior.sample((3 + PILOTS,)).detach()
    for steps in (1, 7):
        log_weights, _ = annealed_log_weights(posterior.log_prob, joint, z, scale=torch.ones(LATENTS), steps=steps)
        torch.testing.assert_close(log_weights, linear.log_evidence.expand(3, -1), atol=1e-8, rtol=0)


def test_one_step_is_plain_importance_sampling(linear):
    torch.manual_seed(3)
    log_weights = annealed_weights(linear.model, linear.x, chains=5, steps=1)
    torch.manual_seed(3)
    q = linear.model.encode(linear.x)
    q.sample((200,))
    z = q.sample((PILOTS + 5,))[PILOTS:]
    p = Independent(Normal(linear.model.decoder.linear(z), 0.3), 1).log_prob(linear.x.flatten(1))
    torch.testing.assert_close(log_weights, linear.model.prior().log_prob(z) + p - q.log_prob(z))


def test_the_bidirectional_gap_is_positive_holds_the_truth_and_closes_with_steps(linear):
    gaps = []
    for steps in (5, 200):
        torch.manual_seed(0)
        below, above = bidirectional_bounds(linear.model, 100, chains=8, steps=steps, leapfrogs=5)
        gap = above - below
        assert gap.mean() > -2 * gap.std() / 10
        gaps.append(gap.mean())
    assert gaps[1] < gaps[0] / 4
    assert gaps[1] < 0.5


def test_the_bounds_lie_on_both_sides_of_the_evidence():
    """The normalisation of a narrow Gaussian, from a wide one and back, at so few steps that both miss it."""
    torch.manual_seed(0)
    wide, narrow = (Independent(Normal(torch.zeros(400, 3), s), 1) for s in (1.0, 0.1))
    options = {"scale": torch.full((3,), 0.1), "steps": 4, "leapfrogs": 2}
    up, _ = annealed_log_weights(wide.log_prob, narrow.log_prob, wide.sample((6,)), **options)
    down, _ = annealed_log_weights(narrow.log_prob, wide.log_prob, narrow.sample((6,)), **options)
    assert log_mean(up).mean() < -0.1
    assert -log_mean(down).mean() > 0.1


def two_modes(z: Tensor) -> Tensor:
    """log density of a narrow and a wide mode, which want other step sizes."""
    modes = Normal(torch.tensor([-2.0, 2.0]).double(), torch.tensor([0.2, 1.0]).double())
    return modes.log_prob(z).logsumexp(-1) - math.log(2)


def test_a_single_chain_is_unbiased_however_fast_the_step_size_adapts(monkeypatch):
    """A chain that steered itself would move more where it is accepted more, and have a mean weight of 1.12 here."""
    monkeypatch.setattr(annealed_importance, "RATE", 1.0)
    torch.manual_seed(0)
    z = 3 * torch.randn(PILOTS + 1, 5000, 1).double()
    start = Independent(Normal(torch.zeros(1).double(), 3.0), 1).log_prob
    log_weights, _ = annealed_log_weights(start, two_modes, z, scale=torch.ones(1).double(), steps=40, leapfrogs=2)
    weights = log_weights[0].exp()
    assert abs(weights.mean() - 1) < 3 * weights.std() / len(weights) ** 0.5


def test_given_step_sizes_are_taken_and_spare_the_pilots():
    torch.manual_seed(0)
    wide, narrow = (Independent(Normal(torch.zeros(50, 2).double(), s), 1).log_prob for s in (1.0, 0.1))
    z, options = torch.randn(6, 50, 2).double(), {"scale": torch.ones(2).double(), "steps": 9}
    torch.manual_seed(1)
    log_weights, step_sizes = annealed_log_weights(wide, narrow, z, **options)
    assert (step_sizes[0] == 0.1).all()
    assert len(step_sizes.unique()) > 50  # of every problem its own
    torch.manual_seed(1)
    again, same = annealed_log_weights(wide, narrow, z, **options, step_sizes=step_sizes)
    assert torch.equal(same, step_sizes)
    assert torch.equal(again[PILOTS:], log_weights)


def test_chains_go_back_in_the_steps_in_which_others_came(linear, monkeypatch):
    """Step sizes found on the way back would depend on the exact draw from which it starts."""
    runs = []

    def spy(*ends, step_sizes=None, **options):
        found = annealed_log_weights(*ends, step_sizes=step_sizes, **options)
        runs.append((step_sizes, found[1]))
        return found

    monkeypatch.setattr(annealed_importance, "annealed_log_weights", spy)
    bidirectional_bounds(linear.model, 5, chains=3, steps=20, leapfrogs=2)
    (_, there), (given, back) = runs
    assert torch.equal(given, there.flip(0))
    assert torch.equal(back, given)


def test_neither_the_unit_of_the_latents_nor_a_constant_factor_matters():
    wide, narrow = (Independent(Normal(torch.zeros(20, 2).double(), s), 1).log_prob for s in (1.0, 0.1))
    z = torch.randn(6, 20, 2, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for unit in (1.0, 1024.0):
        torch.manual_seed(1)
        scale = torch.full((2,), 0.1 * unit).double()
        # Densities of z * unit but for the Jacobian, which the weights do not need; and 5 nats more of the target.
        ends = [lambda v, u=unit: wide(v / u), lambda v, u=unit: narrow(v / u) + (5.0 if u > 1 else 0.0)]
        found.append(annealed_log_weights(*ends, z * unit, scale=scale, steps=9)[0])
    torch.testing.assert_close(found[1], found[0] + 5)


def test_inverse_temperatures_rise_from_0_to_1_symmetrically():
    for steps in (1, 2, 3, 500):
        b = torch.tensor(inverse_temperatures(steps), dtype=torch.float64)
        assert len(b) == steps + 1
        assert (b[0], b[-1]) == (0, 1)
        assert (b.diff() > 0).all()
        torch.testing.assert_close(b, 1 - b.flip(0), atol=1e-12, rtol=0)


def test_a_deterministic_code_starts_from_the_prior_only():
    model, x, log_evidence = known(linear_model(DeterministicSampler))
    with pytest.raises(ValueError, match=r"no density to start from; choose annealing\.start=prior"):
        annealed_weights(model, x, **QUICK)
    log_weights = annealed_weights(model, x, start="prior", **QUICK)
    assert ((log_mean(log_weights) - log_evidence).abs() < 4 * standard_errors(log_weights)).all()


def test_refusals(linear):
    for options, words in (
        ({"chains": 0}, "chains must be"),
        ({"steps": 0}, "steps must be"),
        ({"leapfrogs": 0}, "leapfrogs must be"),
        ({"start": "nowhere"}, "start must be one of posterior, prior"),
    ):
        with pytest.raises(ValueError, match=words):
            annealed_weights(linear.model, linear.x, **options)
    one = Independent(Normal(torch.zeros(4, 2), 1.0), 1)
    with pytest.raises(ValueError, match="needs more than 2 chains, which find the step sizes, but has 2"):
        annealed_log_weights(one.log_prob, one.log_prob, one.sample((2,)), scale=torch.ones(2))
    sphere = linear_model()
    sphere.sampler = VonMisesFisherSampler(in_shape=(PIXELS,), latent_shape=(LATENTS,))
    with pytest.raises(ValueError, match="Euclidean space, but those of this model lie on the unit sphere"):
        annealed_weights(sphere, linear.x)
