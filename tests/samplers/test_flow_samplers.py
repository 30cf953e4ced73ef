"""Posteriors that are normalising flows."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vaelab.distributions import Flow
from vaelab.samplers import CouplingFlowSampler, IAFSampler, PlanarFlowSampler, Sampler
from vaelab.samplers.planar import Planar

Build = Callable[..., Sampler]


def planar(**sizes: tuple[int, ...]) -> Sampler:
    return PlanarFlowSampler(**sizes, steps=3)


def iaf(**sizes: tuple[int, ...]) -> Sampler:
    return IAFSampler(**sizes, steps=3, hidden=[16, 16], context=4)


def affine(**sizes: tuple[int, ...]) -> Sampler:
    return CouplingFlowSampler(**sizes, transform="affine", steps=3, hidden=[16], context=4)


def spline(**sizes: tuple[int, ...]) -> Sampler:
    return CouplingFlowSampler(**sizes, steps=3, hidden=[16], context=4, bins=5)


EVERY = [planar, iaf, affine, spline]


def posterior(build: Build, dim: int, batch: int = 2) -> Flow:
    torch.manual_seed(0)
    sampler = build(in_shape=(5,), latent_shape=(dim,)).double()
    for parameter in sampler.parameters():
        parameter.data *= 1.5  # bends that are worth testing
    return sampler(2 * torch.randn(batch, 5, dtype=torch.float64))


@pytest.mark.parametrize("build", EVERY)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_density_of_own_draws_has_the_jacobian_of_autograd(build: Build, dim: int) -> None:
    q = posterior(build, dim)
    torch.manual_seed(3)
    u = q.base.rsample((3,))
    torch.manual_seed(3)
    z = q.rsample((3,))
    log_prob = q.log_prob(z)
    bend = torch.tensor(0.0)
    for k in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda t: q._push(t)[0], u[k])  # (2, n, 2, n)
        for b in range(2):
            block = jacobian[b, :, b]
            bend = max(bend, (block - torch.eye(dim)).abs().max())
            expected = q.base.log_prob(u)[k, b] - block.slogdet().logabsdet
            torch.testing.assert_close(log_prob[k, b], expected)
    assert bend > 1e-3


@pytest.mark.parametrize("build", EVERY)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_inverse_gives_the_density_of_other_points(build: Build, dim: int) -> None:
    q = posterior(build, dim)
    z = q.rsample((4,))
    torch.testing.assert_close(q.log_prob(z.detach().clone()), q.log_prob(z))


@pytest.mark.parametrize("build", EVERY)
def test_density_integrates_to_one(build: Build) -> None:
    q = posterior(build, 2, batch=1)
    z = q.sample((2000,))
    low, high = z.amin((0, 1)) - 3 * z.std((0, 1)), z.amax((0, 1)) + 3 * z.std((0, 1))
    axes = [torch.linspace(low[i], high[i], 301, dtype=torch.float64) for i in range(2)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).unsqueeze(2)
    with torch.no_grad():
        density = q.log_prob(grid).exp().squeeze(2)
    total = torch.trapezoid(torch.trapezoid(density, axes[1]), axes[0])
    assert total.item() == pytest.approx(1, abs=2e-3)


def test_planar_inverse_undoes_the_map_and_has_its_gradient() -> None:
    torch.manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 6.0], dtype=torch.float64).view(3, 1)
    u, w = (scale * torch.randn(2, 3, 4, dtype=torch.float64)).unbind()
    f = Planar(u, w, torch.randn(3, 1, dtype=torch.float64))
    z = torch.randn(7, 3, 4, dtype=torch.float64, requires_grad=True)
    image, log_det = f.call_and_ladj(z)
    back, inverse_log_det = f.inv.call_and_ladj(image)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(inverse_log_det, -log_det)
    weight = torch.randn_like(z)
    (grad,) = torch.autograd.grad((back * weight).sum() + (inverse_log_det + log_det).sum(), z)
    torch.testing.assert_close(grad, weight)  # the Jacobian of inverse and map together is the identity


def test_planar_directions_obey_the_constraint_and_equation_10() -> None:
    torch.manual_seed(0)
    u, w = 5 * torch.randn(1000, 3, dtype=torch.float64), 3 * torch.randn(1000, 3, dtype=torch.float64)
    b = torch.randn(1000, 1, dtype=torch.float64)
    f = Planar(u, w, b)
    assert ((w * u).sum(-1) < -1).any()
    dot = (w * f.u).sum(-1)
    assert (dot > -1).all()
    torch.testing.assert_close(dot, -1 + torch.log1p((math.e - 1) * (w * u).sum(-1).exp()), atol=1e-6, rtol=1e-5)
    across = torch.linalg.cross(f.u - u, w)
    torch.testing.assert_close(across, torch.zeros_like(across), atol=1e-8, rtol=0)  # u moves along w alone
    z = torch.randn(2, 1000, 3, dtype=torch.float64)
    torch.testing.assert_close(f.call_and_ladj(z)[0], z + f.u * torch.tanh((w * z).sum(-1, keepdim=True) + b))


def test_planar_map_without_a_direction_is_the_identity_however_small_its_normal() -> None:
    torch.manual_seed(0)
    w = torch.tensor([[1e-6, 0.0], [1e-2, 1e-2], [0.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    z = torch.randn(5, 4, 2, dtype=torch.float64)
    image, log_det = Planar(torch.zeros(4, 2, dtype=torch.float64), w, torch.ones(4, 1)).call_and_ladj(z)
    torch.testing.assert_close(image, z, atol=1e-6, rtol=0)
    torch.testing.assert_close(log_det, torch.zeros(5, 4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_iaf_step_is_the_gated_mean_of_equation_14() -> None:
    torch.manual_seed(0)
    sampler = IAFSampler(in_shape=(5,), latent_shape=(3,), steps=1, hidden=[8], context=4).double()
    q = sampler(torch.randn(2, 5, dtype=torch.float64))
    u = q.base.sample((4,))
    z, log_det = q._push(u)

    def outputs(t: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = torch.ones_like(t), torch.zeros_like(t)
        affine = q.bijections[0].meta(t).base
        return affine.scale * scale, affine.loc + shift

    sigma, shift = outputs(u)
    assert ((sigma > 0) & (sigma < 1)).all()
    torch.testing.assert_close(z, sigma * u + shift)
    torch.testing.assert_close(log_det, sigma.log().sum(-1))
    jacobian = torch.autograd.functional.jacobian(lambda t: q._push(t)[0][0, 0], u)[:, 0, 0]
    torch.testing.assert_close(jacobian, jacobian.tril())


def test_iaf_reverses_the_order_after_every_step() -> None:
    torch.manual_seed(0)
    sampler = IAFSampler(in_shape=(5,), latent_shape=(3,), steps=2, hidden=[8], context=4).double()
    q = sampler(torch.randn(1, 5, dtype=torch.float64))
    x = torch.randn(3, dtype=torch.float64)
    first, second = (torch.autograd.functional.jacobian(lambda t, f=f: f(t[None])[0], x) for f in q.bijections)
    torch.testing.assert_close(first, first.tril())
    torch.testing.assert_close(second, second.triu())
    assert first.tril(-1).abs().sum() > 0
    assert second.triu(1).abs().sum() > 0


@pytest.mark.parametrize("build", EVERY)
def test_bijections_depend_on_the_features_beyond_mean_and_deviation(build: Build) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=(5,), latent_shape=(3,)).double()
    for head in (sampler.gaussian.mean, sampler.gaussian.log_scale):
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
    q = sampler(3 * torch.randn(2, 5, dtype=torch.float64))
    z, _ = q._push(torch.ones(2, 3, dtype=torch.float64))
    assert (z[0] - z[1]).abs().max() > 1e-3


@pytest.mark.parametrize("build", EVERY)
def test_gradient_of_a_mean_is_that_of_finite_differences(build: Build) -> None:
    torch.manual_seed(0)
    sampler = build(in_shape=(5,), latent_shape=(3,)).double()
    features = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, dtype=torch.float64)

    def mean_norm(x: Tensor) -> Tensor:
        torch.manual_seed(7)
        q = sampler(x)
        z = q.rsample((50,))
        return (z.square().sum(-1) + 0.1 * q.log_prob(z)).mean()

    (grad,) = torch.autograd.grad(mean_norm(features), features)
    step = 1e-5
    with torch.no_grad():
        difference = (mean_norm(features + step * noise) - mean_norm(features - step * noise)) / (2 * step)
    assert (grad @ noise).item() == pytest.approx(difference.item(), rel=1e-5)


def test_number_of_steps_below_one_is_refused() -> None:
    for build in (PlanarFlowSampler, IAFSampler, CouplingFlowSampler):
        with pytest.raises(ValueError, match="steps must be a whole number of at least 1, but is 0"):
            build(in_shape=(5,), latent_shape=(3,), steps=0)
