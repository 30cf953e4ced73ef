"""A codebook: K vectors, of which every input is replaced by the nearest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn

from vaelab.checks import at_least_zero, fraction, one_of, positive, positive_int
from vaelab.distributions.precision import full_precision
from vaelab.numerics import at_least_float32


class LearnedCodebook(nn.Module):
    """K vectors e_k in d dimensions; an input v gets the code k(v) = argmin_k |v - e_k|^2.

    With `update` gradient the vectors are parameters. With ema they follow running means of the inputs that chose them
    (van den Oord, Vinyals & Kavukcuoglu 2017, appendix A.1): with the share f_k of the batch's inputs that have code k,
    and the sum s_k of those inputs divided by the number of all,

        p_k <- decay p_k + (1 - decay) f_k;   m_k <- decay m_k + (1 - decay) s_k;   e_k = m_k / p'_k

    with p'_k = n (p_k + epsilon) / (n + K epsilon) and n = sum_k p_k. Shares instead of the paper's counts make the
    update independent of the batch's size; e_k is the same.

    Before a batch is coded, every vector whose p_k is at most `revive_below` / K is put on a random input, and p_k on
    1 / K. At the start all p_k are 0, so that the first batch places the whole codebook. Both happen in training mode
    with gradients enabled only, and alike on all devices. Running means have float32 in a model of half precision, too.

    Args:
        num_codes: K.
        code_dim: d.
        update: ema or gradient.
        decay: of the running means, in [0, 1).
        epsilon: of the Laplace smoothing of p_k.
        revive_below: share of the even use 1 / K under which a code counts as dead; 0 leaves the dead alone.

    Raises:
        ValueError: for an unknown `update`, or a value outside its range.
    """

    vectors: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self,
        *,
        num_codes: int,
        code_dim: int,
        update: str = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-6,
        revive_below: float = 0.1,
    ) -> None:
        super().__init__()
        positive_int("num_codes", num_codes), positive_int("code_dim", code_dim)
        self.update = one_of("update", update, ("ema", "gradient"))
        self.decay, self.epsilon = fraction("decay", decay), positive("epsilon", epsilon)
        self.revive_below = at_least_zero("revive_below", revive_below)
        vectors = torch.empty(num_codes, code_dim).uniform_(-1 / num_codes, 1 / num_codes)
        if update == "ema":
            self.register_buffer("vectors", vectors)
            self.register_buffer("sums", torch.zeros(num_codes, code_dim))
        else:
            self.vectors = nn.Parameter(vectors)
        self.register_buffer("usage", torch.zeros(num_codes))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LearnedCodebook:
        """Moves and converts all but the precision of the buffers to less than float32, where running means stall."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in before.items():
            converted = self._buffers[name]
            if value is not None and converted is not None and converted.dtype.itemsize < 4:
                self._buffers[name] = at_least_float32(value).to(converted.device)
        return self

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the codes (...) of inputs (..., d) and their vectors (..., d); learns from them in training."""
        learning = self.training and torch.is_grad_enabled()
        rows = at_least_float32(inputs.detach()).flatten(0, -2)
        if learning:
            self.revive(rows)
        codes = self.nearest(inputs)
        vectors = self.embed(codes)
        if learning:
            self.follow(rows, codes.flatten())
        return codes, vectors

    def embed(self, codes: Tensor) -> Tensor:
        """Returns the vectors (..., d) of codes (...)."""
        return at_least_float32(self.vectors)[codes]

    @torch.no_grad()
    def nearest(self, inputs: Tensor) -> Tensor:
        """Returns the codes (...) of inputs (..., d)."""
        vectors = at_least_float32(self.vectors)
        center = vectors.mean(0)  # keeps the digits that a codebook far from 0 would lose in the squares
        vectors = vectors - center
        rows = at_least_float32(inputs).flatten(0, -2) - center
        with full_precision(rows):  # |v - e|^2 without |v|^2, which all codes have in common
            return torch.addmm(vectors.square().sum(1), rows, vectors.T, alpha=-2).argmin(1).view(inputs.shape[:-1])

    @torch.no_grad()
    def revive(self, rows: Tensor) -> None:
        """Puts unused vectors on random rows (N, d)."""
        count = len(self.usage)
        order = torch.randperm(len(rows), device=rows.device)
        chosen = rows[order.repeat(-(-count // len(order)))[:count]]
        if several_processes():
            chosen = chosen.contiguous()
            distributed.broadcast(chosen, 0)
        dead = self.usage <= self.revive_below / count
        if self.revive_below == 0:  # at the start only: of a short memory, p_k is soon 0
            dead = dead & (self.usage == 0).all()
        self.vectors.copy_(torch.where(dead.unsqueeze(1), chosen, self.vectors))
        if self.update == "ema":
            self.sums.copy_(torch.where(dead.unsqueeze(1), chosen / count, self.sums))
        self.usage.copy_(torch.where(dead, 1 / count, self.usage))

    @torch.no_grad()
    def follow(self, rows: Tensor, codes: Tensor) -> None:
        """Moves the running means towards rows (N, d) with the given codes (N,)."""
        size = len(self.usage), rows.shape[1] + 1
        ones = torch.ones_like(rows[:, :1])
        totals = rows.new_zeros(size).index_add_(0, codes, torch.cat([ones, rows], 1))
        if several_processes():
            distributed.all_reduce(totals)
        totals = totals / totals[:, 0].sum()
        usage = self.usage.lerp(totals[:, 0], 1 - self.decay)
        self.usage.copy_(usage)
        if self.update == "ema":
            sums = self.sums.lerp(totals[:, 1:], 1 - self.decay)
            total = usage.sum()
            smoothed = total * (usage + self.epsilon) / (total + len(usage) * self.epsilon)
            self.sums.copy_(sums)
            self.vectors.copy_(sums / smoothed.unsqueeze(1))


def several_processes() -> bool:
    """Whether this process is one of several that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
