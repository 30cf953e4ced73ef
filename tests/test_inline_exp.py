"""exp by a polynomial and the bits of a float: where compiled code scores many draws, it takes the library's place."""

from __future__ import annotations

import pytest
import torch

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


@pytest.mark.parametrize(
    ("h", "value"),
    [(0.0, 1.0), (-1e4, 2.0**-126), (1e4, 2.0**126), (float("-inf"), 2.0**-126), (float("inf"), 2.0**126)],
)
def test_its_ends(h, value):
    assert inline_exp(torch.tensor([h])).item() == value


def test_nan_stays_nan():
    assert inline_exp(torch.tensor([float("nan")])).isnan().all()
