"""Numerical helpers shared by the parts of a model."""

from __future__ import annotations

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
    if device.type != "cpu":
        return 10_000
    return 1000 if torch.compiler.is_compiling() else 500  # compiled code passes over them less often


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
