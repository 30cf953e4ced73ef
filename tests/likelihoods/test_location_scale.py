"""Where the scale of a Gaussian or Laplace likelihood comes from."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, Normal

from vaelab.likelihoods import GaussianLikelihood, LaplaceLikelihood
from vaelab.likelihoods.base import scale_from
from vaelab.likelihoods.location_scale import MIN_SCALE

K, B, SHAPE = 3, 40, (2, 3, 5)
D = math.prod(SHAPE)
both = pytest.mark.parametrize(
    ("likelihood", "start", "family", "power"),
    [(GaussianLikelihood, "sigma", Normal, 2), (LaplaceLikelihood, "b", Laplace, 1)],
    ids=["gaussian", "laplace"],
)


def means_and_data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(K, B, *SHAPE, dtype=torch.float64), torch.randn(B, *SHAPE, dtype=torch.float64)


@both
def test_the_decoder_predicts_location_and_log_scale_in_units_of_the_start(likelihood, start, family, power) -> None:
    mean, x = means_and_data()
    log_scale = torch.randn_like(mean)
    predicted = likelihood(scale="predicted", **{start: 0.4}).double()
    assert predicted.params_per_channel == 2
    ours = predicted.log_prob(torch.cat([mean, log_scale], -3), x)
    torch.testing.assert_close(ours, family(mean, 0.4 * log_scale.exp()).log_prob(x).sum((-3, -2, -1)))


@both
def test_a_scale_per_pixel_is_driven_to_the_error_of_that_pixel(likelihood, start, family, power) -> None:
    """d log p / d log s_i = mean |x_i - mu_i|^p / s_i^p - 1: zero at s_i^p = mean |x_i - mu_i|^p only."""
    mean, x = means_and_data()
    error = (x - mean).abs().pow(power).mean((0, 1))
    per_pixel = likelihood(scale="learned_per_pixel", x_shape=SHAPE, **{start: 0.4}).double()
    per_pixel.log_prob(mean, x).mean().backward()
    torch.testing.assert_close(per_pixel.log_scale.grad, error / 0.4**power - 1, rtol=1e-6, atol=0)
    per_pixel.log_scale.data = error.log() / power
    per_pixel.log_scale.grad = None
    per_pixel.log_prob(mean, x).mean().backward()
    torch.testing.assert_close(per_pixel.log_scale.grad, torch.zeros(SHAPE).double(), rtol=0, atol=1e-9)


@both
def test_an_optimal_scale_scores_best_in_training_and_is_averaged_for_evaluation(
    likelihood, start, family, power
) -> None:
    mean, x = means_and_data()
    optimal = likelihood(scale="optimal", **{start: 7.0}).double().train()
    best = (x - mean).abs().pow(power).mean().pow(1 / power).item()
    log_px = optimal.log_prob(mean, x)
    torch.testing.assert_close(log_px, family(mean, best).log_prob(x).sum((-3, -2, -1)))
    for factor in (0.95, 1.05):
        assert likelihood(scale="fixed", **{start: factor * best}).double().log_prob(mean, x).mean() < log_px.mean()
    assert optimal.eval().shared_scale.item() == pytest.approx(best)


def test_the_optimal_laplace_scores_its_closed_form() -> None:
    """-log p = D (log(2 b*) + 1) on average, with b* = the mean absolute error."""
    mean, x = means_and_data()
    nll = -LaplaceLikelihood(scale="optimal").double().train().log_prob(mean, x).mean()
    torch.testing.assert_close(nll, D * ((2 * (x - mean).abs().mean()).log() + 1))


@both
def test_a_fixed_scale_is_used_as_it_is_given_and_a_whole_number_will_do(likelihood, start, family, power) -> None:
    mean, x = means_and_data()
    for scale in (1e-4, 2):
        ours = likelihood(scale="fixed", **{start: scale}).double().log_prob(mean, x)
        torch.testing.assert_close(ours, family(mean, float(scale)).log_prob(x).sum((-3, -2, -1)), rtol=1e-6, atol=0)
    optimal = likelihood(scale="optimal", **{start: 2}).train()
    optimal.log_prob(mean.float(), x.float())
    assert optimal.shared_scale.dtype == torch.float32


@both
def test_a_scale_far_too_small_is_drawn_back_by_one_bad_pixel(likelihood, start, family, power) -> None:
    per_pixel = likelihood(scale="learned_per_pixel", x_shape=(1, 1, 2)).double()
    per_pixel.log_scale.data.fill_(math.log(MIN_SCALE) - 1)
    x = torch.tensor([0.0, 0.5]).double().view(1, 1, 1, 2)
    per_pixel.log_prob(torch.zeros(1, 1, 1, 1, 2).double(), x).mean().backward()
    good, bad = per_pixel.log_scale.grad.flatten().tolist()
    assert bad > 1e-3
    assert -1e-3 < good < 0  # and the good one hardly pulls it down any further


@both
@pytest.mark.parametrize("scale", ["learned", "learned_per_pixel", "predicted"])
def test_a_learned_scale_cannot_start_at_its_floor(likelihood, start, family, power, scale) -> None:
    with pytest.raises(ValueError, match=rf"a {scale} scale must start above 0.001, but starts at 0.0005; or use"):
        likelihood(scale=scale, x_shape=SHAPE, **{start: 5e-4})


@both
def test_a_scale_per_pixel_needs_the_shape_of_the_data(likelihood, start, family, power) -> None:
    with pytest.raises(ValueError, match="x_shape must be given for scale=learned_per_pixel"):
        likelihood(scale="learned_per_pixel")


@pytest.mark.parametrize("b", [0.0, -1.0, math.nan])
def test_an_impossible_b_is_refused(b: float) -> None:
    with pytest.raises(ValueError, match=f"b must be a number above 0, but is {b}"):
        LaplaceLikelihood(b=b)


def test_the_soft_floor_bends_nothing_from_e_squared_floors_upwards_and_rises_everywhere_below() -> None:
    raw = torch.linspace(-12, 9.9, 2000, dtype=torch.float64).requires_grad_()
    scale = scale_from(raw, floor=0.001)
    high = raw.detach() > math.log(0.001) + 2
    assert torch.equal(scale[high].isclose(raw.exp()[high], rtol=1e-12), torch.ones(int(high.sum()), dtype=torch.bool))
    assert (scale >= 0.001).all()
    scale.sum().backward()
    assert (raw.grad > 0).all()
    assert scale_from(torch.tensor(1e6), floor=0.001).item() == pytest.approx(math.exp(10))
