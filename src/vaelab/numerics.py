"""Numerical helpers shared by the parts of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Lifts half-precision activations to float32, in which densities are computed; leaves float64 alone."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reuse_memory() -> None:
    """Lets the C library keep freed blocks of up to 32 MB for the next tensors.

    Otherwise glibc returns those of every batch to the system, which clears each page anew: a third of the time of a
    decoder on a CPU. It keeps blocks as large as the largest that was ever freed; this one is never written to.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


def rows_at_once(device: torch.device) -> int:
    """Returns how many draws a decoder takes at once where no gradient is needed: as many as stay in a CPU's cache."""
    return 1000 if device.type == "cpu" else 10_000


# 2^f for f in [-1/2, 1/2]: the polynomial of degree 5 with the least relative error, 9.1e-08, that is 1 at 0.
POWER_OF_TWO = (1.0, 0.693146978, 0.240222421, 0.0555073374, 0.00967151266, 0.00132647272)
ROUNDS = 1.5 * 2**23  # a float32 of this size has no fraction: adding it rounds, and leaves the integer in the low bits


def scores_in_one_pass(h: Tensor) -> bool:
    """Returns whether h is being compiled for a CPU without a gradient, where `inline_exp` serves."""
    return (
        torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and h.device.type == "cpu"
        and h.dtype == torch.float32
    )


def inline_exp(h: Tensor) -> Tensor:
    """Returns exp(h) of float32 numbers up to 87, without a gradient, to within (2 + |h|) 1e-7 of its value.

    exp(h) = 2^n 2^f with h / log 2 = n + f: a polynomial gives 2^f, and n is added to the exponent in its bits.
    Compiled code on a CPU takes it in a fraction of the time of the library's, which is a function call for every
    vector. Below -87 it stays at 2^-126, the smallest power of two; above 87 it is wrong.
    """
    power = (h * (1 / math.log(2))).clamp(min=-126)
    rounded = power + ROUNDS
    fraction = power - (rounded - ROUNDS)
    value = torch.full_like(h, POWER_OF_TWO[-1])
    for coefficient in POWER_OF_TWO[-2::-1]:
        value = value * fraction + coefficient
    return (value.view(torch.int32) + (rounded.view(torch.int32) << 23)).view(torch.float32)


def systematic_resample(log_weights: Tensor, number: int) -> Tensor:
    """Draws indices (number, B) along the first dimension of (K, B), in proportion to exp(log_weights).

    One uniform number places a comb of `number` teeth on the cumulative weights: every index k is expected
    number * w_k times, and drawn that often to the nearest integer below or above.
    """
    edges = log_weights.double().softmax(0).cumsum(0)
    start = torch.rand(log_weights.shape[1], dtype=edges.dtype, device=edges.device)
    teeth = (start + torch.arange(number, dtype=edges.dtype, device=edges.device).unsqueeze(1)) / number  # (J, B)
    return torch.searchsorted(edges.T.contiguous(), teeth.T.contiguous()).T.clamp(max=len(log_weights) - 1)


def get_rng_state(device: torch.device) -> dict[str, Tensor]:
    """Returns the random state of the CPU and of `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restores what `get_rng_state` returned, as far as it fits this device."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())


def seed_rng(seed: int, device: torch.device) -> None:
    """Seeds the CPU and `device`, and no other device (`torch.manual_seed` would seed all of them)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draws repeatably inside the block and restores the random state after it; does nothing if `seed` is None."""
    if seed is None:
        yield
        return
    state = get_rng_state(device)
    seed_rng(seed, device)
    try:
        yield
    finally:
        set_rng_state(state, device)
