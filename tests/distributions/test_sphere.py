"""Von Mises-Fisher and uniform distributions on the sphere, against scipy, quadrature and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import ive, ivp
from torch import Tensor
from torch.distributions import kl_divergence

from vaelab.distributions import UniformSphere, VonMisesFisher
from vaelab.distributions.sphere import _ImplicitAngle, _LogScaledBessel, bessel_ratio, log_scaled_bessel


def fisher(dim: int, kappa: float, dtype: torch.dtype = torch.float64) -> VonMisesFisher:
    mu = torch.nn.functional.normalize(torch.arange(1.0, dim + 1, dtype=dtype), dim=0)
    return VonMisesFisher(mu, torch.tensor(kappa, dtype=dtype))


def quadrature(dim: int, q: VonMisesFisher, f: Callable[[Tensor], Tensor]) -> float:
    """Returns the integral of f(cosine) p(z) over the sphere: area of S^(m-2) times a one-dimensional integral."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(500))
    angle = (nodes + 1) / 2 * math.pi
    mu = q.mean_direction
    other = torch.zeros_like(mu)
    other[0], other[1] = mu[1], -mu[0]
    other = other / other.norm()
    z = angle.cos()[:, None] * mu + angle.sin()[:, None] * other
    log_area = math.log(2) + (dim - 1) / 2 * math.log(math.pi) - math.lgamma((dim - 1) / 2)
    density = (q.log_prob(z) + log_area + (dim - 2) * angle.sin().log()).exp()
    return (math.pi / 2 * weights @ (density * f(angle.cos()))).item()


@pytest.mark.parametrize("dim", [2, 3, 4, 20, 100])
@pytest.mark.parametrize("kappa", [1e-3, 1.0, 30.0, 3000.0])
def test_density_integrates_to_one_and_its_mean_is_the_resultant_length(dim: int, kappa: float) -> None:
    q = fisher(dim, kappa)
    assert quadrature(dim, q, torch.ones_like) == pytest.approx(1, abs=1e-6)
    assert quadrature(dim, q, lambda w: w) == pytest.approx(q.resultant_length.item(), abs=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_density_is_scipys(dim: int) -> None:
    q = fisher(dim, 7.0)
    z = UniformSphere(torch.zeros(dim, dtype=torch.float64)).sample((6,))
    reference = scipy.stats.vonmises_fisher(q.mean_direction.numpy(), 7.0)
    assert np.allclose(q.log_prob(z).numpy(), reference.logpdf(z.numpy()), atol=1e-10)
    assert q.entropy().item() == pytest.approx(reference.entropy(), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("dim", "kappa"), [(2, 0.5), (2, 50.0), (3, 5.0), (20, 10.0), (100, 1e-3), (100, 1e5)])
def test_draws_have_the_moments_of_the_density(dim: int, kappa: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q = fisher(dim, kappa, dtype)
    z = q.rsample((40_000,))
    assert z.dtype == dtype
    assert torch.allclose(z.norm(dim=-1), torch.ones(len(z), dtype=dtype), atol=1e-6)
    cosine = (z @ q.mean_direction).double()
    length = (ive(dim / 2, kappa) / ive(dim / 2 - 1, kappa)).item()
    spread = math.sqrt(1 - length**2 - (dim - 1) / kappa * length)
    assert cosine.mean().item() == pytest.approx(length, abs=4 * spread / 200 + 1e-7)
    assert cosine.std().item() == pytest.approx(spread, rel=0.05)
    assert torch.allclose(z.mean(0).double(), length * q.mean_direction.double(), atol=0.02)
    assert torch.allclose(z.var(0), q.variance, atol=0.02)


def test_draws_have_the_distribution_of_scipys() -> None:
    torch.manual_seed(1)
    q = fisher(3, 4.0)
    mu = q.mean_direction.numpy()
    mine = q.rsample((4000,)).numpy() @ mu
    theirs = scipy.stats.vonmises_fisher(mu, 4.0).rvs(4000, random_state=0) @ mu
    assert scipy.stats.ks_2samp(mine, theirs).pvalue > 0.01


@pytest.mark.parametrize("dim", [2, 3, 20, 100])
@pytest.mark.parametrize("kappa", [0.1, 5.0, 200.0])
def test_closed_kl_to_the_uniform_is_the_integral(dim: int, kappa: float) -> None:
    q, p = fisher(dim, kappa), UniformSphere(torch.zeros(dim, dtype=torch.float64))
    log_p = p.log_prob(q.mean_direction).item()
    order = dim / 2 - 1
    log_c = order * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - math.log(ive(order, kappa)) - kappa
    integral = quadrature(dim, q, lambda w: kappa * w + log_c - log_p)
    assert kl_divergence(q, p).item() == pytest.approx(integral, abs=1e-6)


def test_kl_vanishes_with_the_concentration_in_float32() -> None:
    q, p = fisher(100, 1e-3, torch.float32), UniformSphere(torch.zeros(100))
    assert 0 <= kl_divergence(q, p).item() < 1e-6


def test_uniform_density_is_one_over_the_area_and_draws_cover_the_sphere() -> None:
    torch.manual_seed(0)
    p = UniformSphere(torch.zeros(3, dtype=torch.float64))
    z = p.sample((20_000,))
    assert p.log_prob(z).exp() == pytest.approx(1 / (4 * math.pi))
    assert torch.allclose(z.norm(dim=-1), torch.ones(len(z), dtype=torch.float64))
    assert torch.allclose(z.mean(0), p.mean, atol=0.02)
    assert torch.allclose(z.var(0), p.variance, atol=0.02)
    assert scipy.stats.kstest(z[:, 0].numpy(), scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01  # Archimedes


def test_von_mises_fisher_over_uniform_averages_to_one_under_the_uniform() -> None:
    torch.manual_seed(0)
    q, p = fisher(5, 3.0), UniformSphere(torch.zeros(5, dtype=torch.float64))
    z = p.sample((40_000,))
    assert (q.log_prob(z) - p.log_prob(z)).exp().mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("order", [0.0, 0.5, 9.0, 49.0])
def test_bessel_function_has_the_known_derivative(order: float) -> None:
    x = torch.tensor([1e-2, 0.7, 20.0, 500.0], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(_LogScaledBessel.apply(order, x).sum(), x)
    points = x.detach().numpy()
    # d/dx log(e^-x I_v) = I_v' / I_v - 1, with I_v' = (I_(v-1) + I_(v+1)) / 2
    expected = (ive(order - 1, points) + ive(order + 1, points)) / (2 * ive(order, points)) - 1
    assert np.allclose(grad.numpy(), expected, rtol=1e-9)
    assert torch.autograd.gradcheck(lambda t: _LogScaledBessel.apply(order, t), x)
    assert np.allclose(ivp(order, points[:3]) / ive(order, points[:3]) / np.exp(points[:3]) - 1, grad[:3], rtol=1e-8)


def test_resultant_length_has_the_known_derivative_even_where_it_is_nearly_flat() -> None:
    dim, kappa = 20, torch.tensor([1e-2, 1.0, 50.0, 1e4], dtype=torch.float64, requires_grad=True)
    length = bessel_ratio(dim / 2 - 1, kappa)
    (grad,) = torch.autograd.grad(length.sum(), kappa)
    expected = 1 - length.square() - (dim - 1) / kappa * length
    assert torch.allclose(grad, expected, rtol=1e-5, atol=0)


def test_power_series_takes_over_where_the_bessel_function_underflows() -> None:
    assert ive(400.0, 3.0) == 0
    x = np.array([3.0])
    # The recurrence I_(v-1) - I_(v+1) = (2 v / x) I_v holds on both sides of the switch.
    for order in (401.0, 150.0, 148.0):
        low, mid, high = (log_scaled_bessel(order + i, x).item() for i in (-1, 0, 1))
        assert low + math.log1p(-math.exp(high - low)) == pytest.approx(math.log(2 * order / 3) + mid, abs=1e-10)


def test_angle_moves_with_the_concentration_as_its_quantile_does() -> None:
    # In three dimensions cos(theta) has the quantile function 1 + log(u + (1 - u) exp(-2 kappa)) / kappa.
    kappa = torch.tensor([0.01, 1.0, 8.0, 300.0], dtype=torch.float64).repeat_interleave(5).requires_grad_()
    u = torch.tensor([1e-4, 0.1, 0.5, 0.9, 0.9999], dtype=torch.float64).repeat(4)
    angle = (1 + (u + (1 - u) * (-2 * kappa).exp()).log() / kappa).acos()
    (expected,) = torch.autograd.grad(angle.sum(), kappa)
    length = bessel_ratio(0.5, kappa.detach())
    (grad,) = torch.autograd.grad(_ImplicitAngle.apply(kappa, angle.detach(), length, 3).sum(), kappa)
    assert torch.allclose(grad, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("dim", "kappa"), [(2, 1.0), (2, 20.0), (3, 3.0), (10, 5.0), (100, 40.0)])
def test_reparameterised_gradient_is_that_of_the_expectation(dim: int, kappa: float) -> None:
    torch.manual_seed(0)
    q = fisher(dim, kappa)
    q.concentration.requires_grad_()
    draws = 20_000
    cosine = q.rsample((draws,)) @ q.mean_direction
    (first,) = torch.autograd.grad(cosine.mean(), q.concentration, retain_graph=True)
    (second,) = torch.autograd.grad(cosine.square().mean(), q.concentration)
    # E[w] = A and E[w^2] = 1 - (m - 1) A / kappa
    k = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    length = bessel_ratio(dim / 2 - 1, k)
    (expected_first,) = torch.autograd.grad(length, k, retain_graph=True)
    (expected_second,) = torch.autograd.grad(1 - (dim - 1) * length / k, k)
    assert first.item() == pytest.approx(expected_first.item(), rel=0.03)
    assert second.item() == pytest.approx(expected_second.item(), rel=0.05)


def test_gradient_by_the_mean_direction_is_that_of_the_expectation() -> None:
    torch.manual_seed(0)
    target = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    raw = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    q = VonMisesFisher(raw / raw.norm(), torch.tensor(4.0, dtype=torch.float64))
    (grad,) = torch.autograd.grad((q.rsample((40_000,)) @ target).mean(), raw, retain_graph=True)
    (expected,) = torch.autograd.grad(q.resultant_length * (raw / raw.norm()) @ target, raw)
    assert torch.allclose(grad, expected, atol=0.01)


def test_kl_and_log_prob_have_gradients_after_draws_without() -> None:
    q = fisher(3, 2.0)
    q.concentration.requires_grad_()
    z = q.sample((2,))
    assert not z.requires_grad
    assert q.log_prob(z).requires_grad
    assert kl_divergence(q, UniformSphere(torch.zeros(3))).requires_grad
