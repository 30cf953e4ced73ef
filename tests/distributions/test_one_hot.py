"""One-hot vectors and the Concrete density."""

import pytest
import torch
from torch.distributions import RelaxedOneHotCategorical

from vaelab.distributions import OneHot, RelaxedOneHot

LOGITS = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)


def test_log_prob_picks_the_class_and_passes_the_gradient_on() -> None:
    z = torch.eye(3, dtype=torch.float64).requires_grad_()
    log_prob = OneHot(LOGITS).log_prob(z)
    torch.testing.assert_close(log_prob, LOGITS.log_softmax(-1))
    (grad,) = torch.autograd.grad(log_prob.sum(), z)
    torch.testing.assert_close(grad, LOGITS.log_softmax(-1).expand(3, 3))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_concrete_density_is_torchs(temperature: float) -> None:
    torch.manual_seed(0)
    mine = RelaxedOneHot(temperature, LOGITS)
    z = mine.rsample((7, 2))
    theirs = RelaxedOneHotCategorical(torch.tensor(temperature, dtype=torch.float64), logits=LOGITS)
    torch.testing.assert_close(mine.log_prob(z), theirs.log_prob(z))


@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_concrete_density_of_two_classes_integrates_to_one(temperature: float) -> None:
    a = torch.linspace(-60, 60, 20_001, dtype=torch.float64)  # z_1 = sigmoid(a)
    z = torch.stack([a.sigmoid(), (-a).sigmoid()], -1)
    density = RelaxedOneHot(temperature, LOGITS[:2]).log_prob(z).exp() * z[:, 0] * z[:, 1]
    assert torch.trapezoid(density, a).item() == pytest.approx(1, abs=1e-6)


def test_concrete_density_of_three_classes_integrates_to_one() -> None:
    a = torch.linspace(-40, 40, 801, dtype=torch.float64)
    b, c = torch.meshgrid(a, a, indexing="ij")
    z = torch.stack([b, c, torch.zeros_like(b)], -1).softmax(-1)
    density = RelaxedOneHot(0.7, LOGITS).log_prob(z).exp() * z.prod(-1)  # the Jacobian of the softmax
    assert torch.trapezoid(torch.trapezoid(density, a), a).item() == pytest.approx(1, abs=1e-6)


def test_largest_coordinate_of_a_concrete_draw_is_categorical() -> None:
    torch.manual_seed(0)
    z = RelaxedOneHot(0.3, LOGITS).rsample((20_000,))
    torch.testing.assert_close(z.sum(-1), torch.ones(len(z), dtype=torch.float64))
    shares = torch.bincount(z.argmax(-1), minlength=3) / len(z)
    assert torch.allclose(shares.double(), LOGITS.softmax(-1), atol=0.015)


def test_concrete_gradient_is_that_of_the_expectation() -> None:
    torch.manual_seed(0)
    logits = LOGITS[:2].clone().requires_grad_()
    (grad,) = torch.autograd.grad(RelaxedOneHot(0.8, logits).rsample((40_000,))[:, 0].mean(), logits)
    a = torch.linspace(-60, 60, 20_001, dtype=torch.float64)
    z = torch.stack([a.sigmoid(), (-a).sigmoid()], -1)
    expectation = torch.trapezoid(RelaxedOneHot(0.8, logits).log_prob(z).exp() * z[:, 0].square() * z[:, 1], a)
    (expected,) = torch.autograd.grad(expectation, logits)
    assert torch.allclose(grad, expected, atol=0.005)


def test_density_stays_finite_where_float32_underflows() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([60.0, -60.0, 0.0], requires_grad=True)
    q = RelaxedOneHot(0.1, logits)
    z = q.rsample((200,))
    assert (z > 0).all()
    log_prob = q.log_prob(z)
    assert torch.isfinite(log_prob).all()
    (grad,) = torch.autograd.grad(log_prob.sum(), logits)
    assert torch.isfinite(grad).all()
