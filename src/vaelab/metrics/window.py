"""Means over many batches without waiting for the device at every one of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class NonFiniteError(RuntimeError):
    """A logged term became NaN or infinite.

    Attributes:
        term: name of the first such term.
        value: what it was.
        offset: how many batches after the window's first it was.
    """

    def __init__(self, term: str, value: float, offset: int) -> None:
        super().__init__(f"{term} is {value}")
        self.term, self.value, self.offset = term, value, offset


class Window:
    """Collects the logs of batches on the device and brings them to the host together.

    Attributes:
        names: the terms collected.
        scalars: the last value of every plain number.

    Adding a batch costs one stack of scalars; reading out is the only point that waits for the device.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._rows: list[Tensor] = []
        self._sizes: list[int] = []
        self.scalars: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def examples(self) -> int:
        """Examples collected."""
        return sum(self._sizes)

    def add(self, logs: dict[str, Tensor | float], size: int) -> None:
        """Adds a batch of `size` examples: tensors are summed, of plain numbers the last is kept."""
        tensors = {name: value for name, value in logs.items() if isinstance(value, Tensor)}
        if not self._rows:
            self.names = list(tensors)
        if tensors.keys() != set(self.names):
            raise ValueError(f"a batch logged {', '.join(tensors)}, but the ones before it {', '.join(self.names)}")
        self._rows.append(torch.stack([tensors[name] for name in self.names]))
        self._sizes.append(size)
        self.scalars.update({name: value for name, value in logs.items() if not isinstance(value, Tensor)})

    def sums(self) -> Tensor:
        """Returns the sum of every term over the examples and, last, their number: (T + 1,), float64, on the host.

        Raises:
            NonFiniteError: naming the first batch and term that is NaN or infinite.
        """
        rows = torch.stack(self._rows).cpu().double()  # (batches, T): the one wait
        sizes = torch.tensor(self._sizes, dtype=torch.float64).unsqueeze(1)
        rows = torch.where(sizes > 0, rows, 0.0)  # the mean of an empty batch is NaN
        bad = (~torch.isfinite(rows)).nonzero()
        if len(bad):
            offset, _ = bad[0].tolist()
            # Of the terms that went wrong in that batch, the most basic one: `loss` and `elbo` only follow the others.
            wrong = [self.names[i] for i in (~torch.isfinite(rows[offset])).nonzero().flatten().tolist()]
            term = next((name for name in wrong if name not in ("loss", "elbo")), wrong[0])
            raise NonFiniteError(term, rows[offset, self.names.index(term)].item(), offset)
        return torch.cat([(rows * sizes).sum(0), sizes.sum(0)])

    def clear(self) -> None:
        """Forgets the batches."""
        self._rows, self._sizes = [], []


def weighted_means(names: list[str], sums: Tensor) -> dict[str, float]:
    """Turns what `Window.sums` returned, added over processes if there are several, into means by name."""
    *totals, count = sums.tolist()
    return {name: total / count if count else math.nan for name, total in zip(names, totals, strict=True)}
