"""Numerical helpers: precision of densities, and repeatable draws."""

import pytest
import torch

from vaelab.numerics import at_least_float32, get_rng_state, seeded, set_rng_state

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_lifted_and_the_rest_left_alone(given: torch.dtype, wanted: torch.dtype) -> None:
    x = torch.tensor([0.5, -2.0], dtype=given)
    lifted = at_least_float32(x)
    assert lifted.dtype == wanted
    assert lifted.tolist() == [0.5, -2.0]


def test_lifting_passes_the_gradient_on() -> None:
    x = torch.tensor([0.5, -2.0], dtype=torch.bfloat16, requires_grad=True)
    (3 * at_least_float32(x)).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_draws_inside_a_seeded_block_are_repeatable() -> None:
    with seeded(1, CPU):
        first = torch.randn(5)
    torch.randn(3)
    with seeded(1, CPU):
        again = torch.randn(5)
    with seeded(2, CPU):
        other = torch.randn(5)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_seeded_block_leaves_the_draws_outside_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(5)
    torch.manual_seed(0)
    with seeded(1, CPU):
        torch.randn(100)
    assert torch.equal(torch.randn(5), wanted)


def test_a_seeded_block_restores_the_state_after_an_error() -> None:
    state = torch.get_rng_state()

    def fail() -> None:
        with seeded(1, CPU):
            torch.randn(100)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


def test_no_seed_goes_on_with_the_global_draws() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(5)
    torch.manual_seed(0)
    with seeded(None, CPU):
        assert torch.equal(torch.randn(5), wanted)


def test_a_random_state_can_be_put_aside_and_taken_up_again() -> None:
    state = get_rng_state(CPU)
    wanted = torch.randn(5)
    torch.manual_seed(99)
    set_rng_state(state, CPU)
    assert torch.equal(torch.randn(5), wanted)
