"""The continuous Bernoulli, over all logits a decoder may emit."""

import math

import pytest
import torch
from torch import Tensor

from vaelab.likelihoods import ContinuousBernoulliLikelihood
from vaelab.likelihoods.continuous_bernoulli import SERIES_BELOW, ContinuousBernoulli

EDGE = SERIES_BELOW
LOGITS = [0.0, 1e-30, 1e-8, 1e-3, 4e-3, 0.1, EDGE - 1e-4, EDGE, EDGE + 1e-4, 2.0, 15.0, 20.0, 100.0, 1e4]
LOGITS = [-logit for logit in reversed(LOGITS[1:])] + LOGITS


def exact_log_density_at_zero(logit: float) -> float:
    """log(l / (e^l - 1)): minus the log of the integral of exp(l x) over [0, 1]."""
    a = abs(logit)
    log_integral = 0.0 if a < 1e-12 else math.log(-math.expm1(-a) / a)  # of exp(-a x)
    return -log_integral - max(logit, 0.0)


def exact_mean(logit: float) -> float:
    a = abs(logit)
    if a < 1e-2:
        return 0.5 + logit / 12 - logit**3 / 720
    below = 1 / a - (math.exp(-a) / -math.expm1(-a))  # for the logit -a
    return below if logit < 0 else 1 - below


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 2e-7)])
def test_the_constant_is_exact_at_every_logit(dtype: torch.dtype, tolerance: float) -> None:
    ours = ContinuousBernoulli(torch.tensor(LOGITS, dtype=dtype)).log_prob(torch.zeros((), dtype=dtype))
    wanted = torch.tensor([exact_log_density_at_zero(logit) for logit in LOGITS], dtype=dtype)
    torch.testing.assert_close(ours, wanted, rtol=2 * torch.finfo(dtype).eps, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-8)])
def test_the_mean_is_exact_at_every_logit(dtype: torch.dtype, tolerance: float) -> None:
    wanted = torch.tensor([exact_mean(logit) for logit in LOGITS], dtype=dtype)
    torch.testing.assert_close(
        ContinuousBernoulli(torch.tensor(LOGITS, dtype=dtype)).mean, wanted, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_the_gradient_by_the_logit_is_x_minus_the_mean(x: float) -> None:
    """The score of an exponential family; where a formula cancels, noise would show here, in float32."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    ContinuousBernoulli(logits).log_prob(torch.tensor(x)).sum().backward()
    assert logits.grad is not None
    wanted = x - torch.tensor([exact_mean(logit) for logit in LOGITS])
    torch.testing.assert_close(logits.grad, wanted, rtol=0, atol=2e-6)


def test_it_agrees_with_the_formula_of_the_paper() -> None:
    """C(lambda) = 2 artanh(1 - 2 lambda) / (1 - 2 lambda)."""
    lam = torch.tensor([0.01, 0.2, 0.45, 0.7, 0.999], dtype=torch.float64)
    x = torch.linspace(0, 1, 11, dtype=torch.float64).view(-1, 1)
    wanted = (2 * torch.atanh(1 - 2 * lam) / (1 - 2 * lam)) * lam**x * (1 - lam) ** (1 - x)
    torch.testing.assert_close(ContinuousBernoulli(lam.logit()).log_prob(x).exp(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("logit", [-30.0, -3.0, 0.0, 1e-9, 0.2, 3.0, 30.0])
def test_samples_follow_the_distribution_function(logit: float) -> None:
    torch.manual_seed(0)
    count = 20_000
    draws = ContinuousBernoulli(torch.tensor(logit)).sample((count,)).double().sort().values
    assert 0 <= draws[0] <= draws[-1] <= 1
    cdf: Tensor = draws if abs(logit) < 1e-6 else torch.expm1(logit * draws) / math.expm1(logit)
    gap = (cdf - (torch.arange(count) + 0.5) / count).abs().max().item()
    assert gap < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov, one in a hundred


def test_a_grey_half_is_worth_no_more_than_the_uniform_density() -> None:
    """Unlike the Bernoulli's pseudo-likelihood, which gives every grey value a penalty that no decoder can avoid."""
    params, x = torch.zeros(1, 1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.5)
    assert ContinuousBernoulliLikelihood().log_prob(params, x).item() == pytest.approx(0, abs=1e-6)
