"""What holds of every likelihood: it is normalised, and its log-density, mean and samples belong together."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from vaelab.likelihoods import (
    BernoulliLikelihood,
    BetaLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLikelihood,
    LaplaceLikelihood,
    Likelihood,
    LogitNormalLikelihood,
)

L = 7
K, B, SHAPE = 3, 4, (2, 3, 2)
ONE = (1, 1, 1)


@dataclass(frozen=True)
class Case:
    """How to build a likelihood for images of a shape, and the set that it is normalised over."""

    build: Callable[[tuple[int, ...]], Likelihood]
    over: str  # binary, levels, unit, bins (the unit interval and half a level on both sides) or real
    centre: tuple[float, ...] = (0.0,)  # of the parameters in quadratures: at (0, 0) a beta density has steep poles

    def data(self, *shape: int) -> Tensor:
        """Draws data of the kind, its extremes included."""
        if self.over in ("binary", "levels"):
            levels = 2 if self.over == "binary" else L
            x = torch.randint(0, levels, shape) / (levels - 1)
        else:
            x = torch.randn(shape) if self.over == "real" else torch.rand(shape)
        x.view(-1)[:2] = torch.tensor([0.0, 1.0])
        return x

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Returns where to evaluate a density of one value, and the weights with which to add: both (N,)."""
        if self.over in ("binary", "levels"):
            levels = 2 if self.over == "binary" else L
            return torch.arange(levels).double() / (levels - 1), torch.ones(levels).double()
        t = torch.linspace(-1, 1, 40_001, dtype=torch.float64)
        if self.over == "real":
            return 40 * t**3, 120 * t**2 * (t[1] - t[0])  # dense where the mass is
        # tanh-sinh: exact even where the density has poles at the ends
        t = 3.6 * t
        u = math.pi / 2 * t.sinh()
        x, weights = u.sigmoid(), (t[1] - t[0]) * math.pi / 2 * t.cosh() * u.sigmoid() * (-u).sigmoid()
        if self.over == "bins":
            width = L / (L - 1)
            return width * x - 1 / (2 * (L - 1)), width * weights
        return x, weights


CASES = {
    "bernoulli": Case(lambda shape: BernoulliLikelihood(), "binary"),
    "continuous_bernoulli": Case(lambda shape: ContinuousBernoulliLikelihood(), "unit"),
    "categorical": Case(lambda shape: CategoricalLikelihood(levels=L), "levels"),
    "discretized_logistic": Case(lambda shape: DiscretizedLogisticLikelihood(levels=L), "levels"),
    "discretized_logistic_mixture": Case(
        lambda shape: DiscretizedLogisticMixtureLikelihood(levels=L, num_components=3), "levels"
    ),
    "beta": Case(lambda shape: BetaLikelihood(levels=L), "bins", centre=(0.0, 2.0)),
    "logit_normal": Case(lambda shape: LogitNormalLikelihood(levels=L), "bins"),
    "gaussian_fixed": Case(lambda shape: GaussianLikelihood(scale="fixed", sigma=0.4), "real"),
    "gaussian_learned": Case(lambda shape: GaussianLikelihood(scale="learned", sigma=0.4), "real"),
    "gaussian_per_pixel": Case(lambda shape: GaussianLikelihood(scale="learned_per_pixel", x_shape=shape), "real"),
    "gaussian_predicted": Case(lambda shape: GaussianLikelihood(scale="predicted", sigma=0.4), "real"),
    "gaussian_optimal": Case(lambda shape: GaussianLikelihood(scale="optimal", sigma=0.4), "real"),
    "laplace_fixed": Case(lambda shape: LaplaceLikelihood(scale="fixed", b=0.4), "real"),
    "laplace_learned": Case(lambda shape: LaplaceLikelihood(scale="learned", b=0.4), "real"),
    "laplace_per_pixel": Case(lambda shape: LaplaceLikelihood(scale="learned_per_pixel", x_shape=shape), "real"),
    "laplace_predicted": Case(lambda shape: LaplaceLikelihood(scale="predicted", b=0.4), "real"),
    "laplace_optimal": Case(lambda shape: LaplaceLikelihood(scale="optimal", b=0.4), "real"),
}
every_likelihood = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def build(case: Case, shape: tuple[int, ...] = SHAPE) -> Likelihood:
    """Builds the likelihood for evaluation, with scales that differ from pixel to pixel where they may."""
    torch.manual_seed(0)
    likelihood = case.build(shape).eval()
    for parameter in likelihood.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return likelihood


def draw_params(likelihood: Likelihood, *batch: int, shape: tuple[int, ...] = SHAPE, spread: float = 0.5) -> Tensor:
    channels, height, width = shape
    return spread * torch.randn(*batch, likelihood.params_per_channel * channels, height, width)


@every_likelihood
def test_it_is_normalised(case: Case) -> None:
    likelihood = build(case, ONE).double()
    x, weights = case.nodes()
    params = draw_params(likelihood, 8, 1, shape=ONE).double() + torch.tensor(case.centre).view(-1, 1, 1)
    density = likelihood.log_prob(params.expand(-1, len(x), -1, -1, -1), x.view(-1, 1, 1, 1)).exp()
    torch.testing.assert_close((density * weights).sum(-1), torch.ones(8).double(), rtol=0, atol=2e-5)


@every_likelihood
def test_the_mean_is_the_mean_of_the_density(case: Case) -> None:
    likelihood = build(case, ONE).double()
    x, weights = case.nodes()
    params = draw_params(likelihood, 8, 1, shape=ONE).double() + torch.tensor(case.centre).view(-1, 1, 1)
    density = likelihood.log_prob(params.expand(-1, len(x), -1, -1, -1), x.view(-1, 1, 1, 1)).exp()
    wanted = (density * weights * x).sum(-1)
    torch.testing.assert_close(likelihood(params[:, 0]).mean.flatten(), wanted, rtol=0, atol=2e-5)


@every_likelihood
def test_the_mean_is_the_mean_of_the_samples(case: Case) -> None:
    likelihood = build(case)
    p = likelihood(draw_params(likelihood, B, spread=1.0))
    count = 10_000
    samples = p.sample((count,))
    assert samples.shape == (count, B, *SHAPE)
    standard_error = samples.std(0) / math.sqrt(count)
    rare = 5 / count  # what draws too rare to show in the standard error can move the mean by
    assert ((samples.mean(0) - p.mean).abs() <= 5 * standard_error + rare).all()


@every_likelihood
def test_samples_lie_in_the_support(case: Case) -> None:
    likelihood = build(case)
    samples = likelihood(draw_params(likelihood, 100, spread=5.0)).sample()
    assert samples.dtype == torch.float32
    assert samples.isfinite().all()
    if case.over in ("binary", "levels"):
        levels = torch.arange(2 if case.over == "binary" else L) / ((2 if case.over == "binary" else L) - 1)
        assert torch.isin(samples, levels).all()
        assert set(samples.unique().tolist()) == set(levels.tolist())
    if case.over in ("unit", "bins"):
        margin = 0.5 / (L - 1) if case.over == "bins" else 0
        assert samples.min() >= -margin - 1e-6
        assert samples.max() <= 1 + margin + 1e-6


@every_likelihood
def test_every_draw_is_scored_against_every_image_as_it_would_be_alone(case: Case) -> None:
    likelihood = build(case)
    params, x = draw_params(likelihood, K, B), case.data(B, *SHAPE)
    together = likelihood.log_prob(params, x)
    assert together.shape == (K, B)
    for k in range(K):
        torch.testing.assert_close(likelihood(params[k]).log_prob(x), together[k])
        for b in range(B):
            torch.testing.assert_close(likelihood.log_prob(params[[k]][:, [b]], x[[b]]), together[[k]][:, [b]])


@every_likelihood
def test_channel_p_times_c_plus_c_holds_parameter_p_of_channel_c(case: Case) -> None:
    likelihood = build(case)
    params = draw_params(likelihood, 1)
    jacobian = torch.autograd.functional.jacobian(lambda p: likelihood(p).mean, params)[0, :, :, :, 0]
    affects = (jacobian.unflatten(3, (likelihood.params_per_channel, SHAPE[0])) != 0).any(3).flatten(3).flatten(0, 2)
    assert torch.equal(affects, torch.eye(math.prod(SHAPE), dtype=torch.bool))


@every_likelihood
def test_the_density_of_an_image_is_the_product_over_its_values(case: Case) -> None:
    """Exchanging one value between two images leaves the product of their densities alone."""
    likelihood = build(case)
    params, x, y = draw_params(likelihood, 1, B), case.data(B, *SHAPE), case.data(B, *SHAPE)
    swapped_x, swapped_y = x.clone(), y.clone()
    swapped_x[:, 1, 2, 0], swapped_y[:, 1, 2, 0] = y[:, 1, 2, 0], x[:, 1, 2, 0]
    before = likelihood.log_prob(params, x), likelihood.log_prob(params, y)
    after = likelihood.log_prob(params, swapped_x), likelihood.log_prob(params, swapped_y)
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(after[0] + after[1], before[0] + before[1])


@every_likelihood
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_the_decoder_and_the_parameters(case: Case, training: bool) -> None:
    likelihood = build(case).train(training)
    params = draw_params(likelihood, K, B).requires_grad_()
    likelihood.log_prob(params, case.data(B, *SHAPE)).mean().backward()
    for tensor in (params, *likelihood.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).all()


@every_likelihood
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_parameters_are_lifted_to_float32(case: Case, dtype: torch.dtype) -> None:
    likelihood = build(case)
    params, x = draw_params(likelihood, K, B).to(dtype), case.data(B, *SHAPE)
    log_px = likelihood.log_prob(params, x)
    assert log_px.dtype == torch.float32
    torch.testing.assert_close(log_px, likelihood.log_prob(params.float(), x), rtol=0, atol=0)
    torch.testing.assert_close(likelihood(params[0]).mean, likelihood(params[0].float()).mean, rtol=0, atol=0)


@every_likelihood
@pytest.mark.parametrize("size", [30.0, 1e4])
def test_extreme_parameters_give_finite_losses_gradients_means_and_samples(case: Case, size: float) -> None:
    likelihood = build(case)
    params = size * torch.randint(-1, 2, draw_params(likelihood, 20, B).shape).float()
    params += 0.1 * torch.randn_like(params)
    params.requires_grad_()
    log_px = likelihood.log_prob(params, case.data(B, *SHAPE))
    log_px.sum().backward()
    assert log_px.isfinite().all()
    assert params.grad is not None
    assert params.grad.isfinite().all()
    p = likelihood(params[0].detach())
    assert p.mean.isfinite().all()
    assert p.sample().isfinite().all()


@every_likelihood
def test_data_outside_its_support_is_refused_by_name_with_a_remedy(case: Case) -> None:
    likelihood = build(case)
    for support in ("binary", "levels", "unit", "real"):
        if support in likelihood.supports:
            likelihood.check_support(support)
        else:
            name = type(likelihood).__name__
            with pytest.raises(ValueError, match=rf"{name} scores .*, but this data is {support} .*use "):
                likelihood.check_support(support)


@every_likelihood
def test_bits_per_dim_are_claimed_where_probabilities_sum_to_one_and_nowhere_else(case: Case) -> None:
    claimed = build(case).probability_of
    if case.over == "levels":
        assert claimed == ("binary", "levels")
    else:  # a Bernoulli "likelihood" of grey values is not normalised
        assert set(claimed) <= ({"binary"} if case.over == "binary" else set())
