"""exp by a polynomial and the bits of a float: where compiled code scores many draws, it takes the library's place."""

from __future__ import annotations

import pytest
import torch

from vaelab.likelihoods.bernoulli import log_prob_without_gradient
from vaelab.networks.base import Tanh
from vaelab.numerics import inline_exp


def test_it_is_exp_to_a_few_roundings():
    h = torch.linspace(-87, 87, 2_000_001)
    error = inline_exp(h).double() / h.double().exp() - 1
    assert (error.abs() <= (2 + h.abs()) * 1e-7).all()
    assert error[h.abs() < 1].mean().abs() < 3e-8  # and leans to neither side: sums of hundreds stay right


def test_it_is_continuous_where_the_exponent_changes():
    below = torch.tensor([0.5 * torch.log(torch.tensor(2.0))]).nextafter(torch.tensor(0.0))
    above = below.nextafter(torch.tensor(1.0)).nextafter(torch.tensor(1.0))
    torch.testing.assert_close(inline_exp(below), inline_exp(above), rtol=5e-7, atol=0)


@pytest.mark.parametrize(("h", "value"), [(0.0, 1.0), (-1e4, 2.0**-126), (float("-inf"), 2.0**-126)])
def test_its_ends(h, value):
    assert inline_exp(torch.tensor([h])).item() == value


def test_nan_stays_nan():
    assert inline_exp(torch.tensor([float("nan")])).isnan().all()


@pytest.mark.slow
def test_compiled_layers_are_those_of_plain_pytorch():
    h = torch.cat([torch.linspace(-200, 200, 40_000), torch.tensor([float("inf"), float("-inf"), 0.0, 1e-6])])
    logits, x = 8 * torch.randn(50, 1, 784), torch.rand(1, 784)
    torch.compiler.reset()
    with torch.no_grad():
        tanh, log_prob = torch.compile(Tanh()), torch.compile(log_prob_without_gradient)
        torch.testing.assert_close(tanh(h), torch.tanh(h), atol=3e-7, rtol=0)
        exact = (x * logits.double() - torch.nn.functional.softplus(logits.double())).sum(-1)
        torch.testing.assert_close(log_prob(logits, x).double(), exact, atol=5e-4, rtol=0)
        assert (log_prob(logits, x) - exact).mean().abs() < 5e-5  # no bias that would shift a table
