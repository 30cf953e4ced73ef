"""The Gaussian likelihood with a fixed, a learned and an optimal sigma."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from vaelab.likelihoods import GaussianLikelihood

K, B, SHAPE = 3, 4, (2, 3, 5)
D = math.prod(SHAPE)
SCALES = ["fixed", "learned", "optimal"]


def means_and_data(count: int = B) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(K, count, *SHAPE, dtype=torch.float64), torch.randn(count, *SHAPE, dtype=torch.float64)


def mean_squared_error(mean: Tensor, x: Tensor) -> Tensor:
    return (mean - x).square().mean()


# ---- the density


@pytest.mark.parametrize("scale", SCALES)
def test_density_integrates_to_one(scale: str) -> None:
    likelihood = GaussianLikelihood(scale=scale, sigma=0.4).double().eval()
    grid = torch.linspace(-6, 8, 2001, dtype=torch.float64)
    mean = torch.full((1, 2001, 1, 1, 1), 0.7, dtype=torch.float64)
    density = likelihood.log_prob(mean, grid.view(-1, 1, 1, 1)).exp().squeeze(0)
    assert density.sum().item() * (grid[1] - grid[0]).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_log_prob_keeps_its_constants_and_sums_over_the_image(scale: str) -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale=scale, sigma=0.4).eval(), means_and_data()
    log_px = likelihood.log_prob(mean, x)
    assert log_px.shape == (K, B)
    squares = (mean - x).square().sum((-3, -2, -1))
    wanted = -squares / (2 * 0.4**2) - D / 2 * math.log(2 * math.pi * 0.4**2)
    torch.testing.assert_close(log_px, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(log_px, Normal(mean, 0.4).log_prob(x).sum((-3, -2, -1)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_log_prob_agrees_with_the_distribution(scale: str) -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale=scale, sigma=0.4).eval(), means_and_data()
    p = likelihood(mean[0])
    assert (p.batch_shape, p.event_shape) == ((B,), SHAPE)
    torch.testing.assert_close(p.mean, mean[0])
    torch.testing.assert_close(likelihood.log_prob(mean[:1], x)[0], p.log_prob(x))


@pytest.mark.parametrize("scale", SCALES)
def test_half_precision_means_are_scored_in_float32(scale: str) -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale=scale), means_and_data()
    assert likelihood.log_prob(mean.bfloat16(), x.float()).dtype == torch.float32


@pytest.mark.parametrize("support", ["binary", "levels", "unit", "real"])
def test_every_kind_of_data_is_accepted(support: str) -> None:
    GaussianLikelihood().check_support(support)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma must be a number above 0, but is {sigma}"):
        GaussianLikelihood(sigma=sigma)


def test_an_unknown_scale_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"scale must be one of fixed, learned, .*'optimum'; did you mean 'optimal'"):
        GaussianLikelihood(scale="optimum")


# ---- fixed and learned


def test_a_fixed_sigma_has_no_parameter_and_stays() -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale="fixed", sigma=0.4), means_and_data()
    likelihood.log_prob(mean, x)
    assert not list(likelihood.parameters())
    assert likelihood.sigma.item() == pytest.approx(0.4)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_a_learned_sigma_is_driven_towards_the_root_mean_squared_error(sigma: float) -> None:
    """d log p / d sigma = D (MSE / sigma^2 - 1) / sigma per image: zero at sigma = RMSE only."""
    likelihood, (mean, x) = GaussianLikelihood(scale="learned", sigma=sigma).double(), means_and_data()
    (parameter,) = likelihood.parameters()
    (gradient,) = torch.autograd.grad(likelihood.log_prob(mean, x).mean(), parameter)
    (slope,) = torch.autograd.grad(likelihood.sigma, parameter)
    assert likelihood.sigma.item() == pytest.approx(sigma, rel=1e-6)
    wanted = D * (mean_squared_error(mean, x) / likelihood.sigma**2 - 1) / likelihood.sigma
    assert wanted.abs() > 1
    assert slope > 0
    torch.testing.assert_close(gradient, wanted * slope)


def test_a_learned_sigma_rests_at_the_root_mean_squared_error_and_scores_best_there() -> None:
    mean, x = means_and_data()
    optimum = mean_squared_error(mean, x).sqrt().item()
    likelihood = GaussianLikelihood(scale="learned", sigma=optimum).double()
    best = likelihood.log_prob(mean, x).mean()
    (gradient,) = torch.autograd.grad(best, list(likelihood.parameters()))
    assert gradient.item() == pytest.approx(0, abs=1e-4)
    for factor in (0.9, 1.1):
        assert GaussianLikelihood(scale="fixed", sigma=factor * optimum).log_prob(mean, x).mean() < best


def test_a_learned_sigma_is_trained_by_an_optimizer() -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale="learned").double(), means_and_data()
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (-likelihood.log_prob(mean, x).mean()).backward()
        optimizer.step()
    assert likelihood.sigma.item() == pytest.approx(mean_squared_error(mean, x).sqrt().item(), rel=1e-3)


# ---- optimal


def test_an_optimal_sigma_scores_the_published_formula_in_training() -> None:
    """Rybkin et al. 2021: -log p = (D / 2) (log(2 pi sigma*^2) + 1) on average, with sigma*^2 = MSE."""
    likelihood, (mean, x) = GaussianLikelihood(scale="optimal").double().train(), means_and_data()
    mse = mean_squared_error(mean, x)
    nll = -likelihood.log_prob(mean, x).mean()
    torch.testing.assert_close(nll, D / 2 * (torch.log(2 * math.pi * mse) + 1))
    for factor in (0.9, 1.1):
        assert nll < -GaussianLikelihood(scale="fixed", sigma=factor * mse.sqrt().item()).log_prob(mean, x).mean()


def test_an_optimal_sigma_has_the_gradient_of_the_formula_that_differentiates_through_it() -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale="optimal").double().train(), means_and_data()
    mean.requires_grad_()
    (ours,) = torch.autograd.grad(-likelihood.log_prob(mean, x).mean(), mean)
    (wanted,) = torch.autograd.grad(D / 2 * (torch.log(2 * math.pi * mean_squared_error(mean, x)) + 1), mean)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(ours, wanted)


def test_an_optimal_sigma_starts_at_its_argument() -> None:
    assert GaussianLikelihood(scale="optimal", sigma=0.4).sigma.item() == pytest.approx(0.4)


def test_the_first_training_batch_replaces_the_start_and_few_are_averaged_evenly() -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale="optimal", sigma=50.0).double().train(), means_and_data()
    errors = []
    for factor in (1.0, 2.0, 0.5):
        likelihood.log_prob(factor * mean, x)
        errors.append(mean_squared_error(factor * mean, x).item())
        assert likelihood.sigma.item() ** 2 == pytest.approx(sum(errors) / len(errors))


def test_old_training_batches_are_forgotten() -> None:
    likelihood = GaussianLikelihood(scale="optimal").double().train()
    zeros = torch.zeros(1, 1, 1, 1, 1, dtype=torch.float64)
    for value in [10.0] * 100 + [0.5] * 1000:
        likelihood.log_prob(zeros, torch.full((1, 1, 1, 1), value, dtype=torch.float64))
    assert likelihood.sigma.item() ** 2 == pytest.approx(0.25 + (100 - 0.25) * 0.99**1000, rel=1e-6)


def test_evaluation_with_an_optimal_sigma_does_not_look_at_the_data_it_scores() -> None:
    likelihood, (mean, x) = GaussianLikelihood(scale="optimal").double(), means_and_data()
    likelihood.train().log_prob(2 * mean, x)
    likelihood.eval()
    sigma = likelihood.sigma.item()
    assert sigma == pytest.approx(mean_squared_error(2 * mean, x).sqrt().item())
    together = likelihood.log_prob(mean, x)
    torch.testing.assert_close(together, Normal(mean, sigma).log_prob(x).sum((-3, -2, -1)))
    for b in range(B):
        torch.testing.assert_close(likelihood.log_prob(mean[:, [b]], x[[b]]), together[:, [b]])
    assert torch.equal(likelihood.log_prob(mean, x), together)
    assert likelihood.sigma.item() == sigma


def test_a_running_sigma_travels_with_the_weights() -> None:
    trained, (mean, x) = GaussianLikelihood(scale="optimal").double().train(), means_and_data()
    trained.log_prob(mean, x)
    other = GaussianLikelihood(scale="optimal").double()
    other.load_state_dict(trained.state_dict())
    assert other.sigma.item() == trained.sigma.item()
    for likelihood in (trained, other):  # and both go on in the same way
        likelihood.log_prob(3 * mean, x)
    assert other.sigma.item() == trained.sigma.item()


def test_perfect_reconstructions_stay_finite() -> None:
    likelihood, (_, x) = GaussianLikelihood(scale="optimal").double(), means_and_data()
    mean = x.expand(K, *x.shape).clone().requires_grad_()
    for training in (True, False):
        log_px = likelihood.train(training).log_prob(mean, x)
        (gradient,) = torch.autograd.grad(log_px.sum(), mean)
        assert likelihood.sigma > 0
        torch.testing.assert_close(log_px, -D * torch.log(math.sqrt(2 * math.pi) * likelihood.sigma).expand(K, B))
        assert gradient.isfinite().all()
