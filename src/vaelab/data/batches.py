"""Batches of an in-memory set: sharded, reshuffled by epoch, and resumable in the middle of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaelab.data.images import Images


class Batches:
    """Iterates over (x, y) batches of one rank's shard, on the device where the images lie.

    The order of epoch e depends on (seed, e) alone. Every step takes the next `batch_size * world_size` images of that
    order and gives each rank a contiguous, near-equal part of them, so that R ranks with B images each see together what
    one process sees with R * B. When training, a last step of fewer images than ranks is left out (no rank can wait for
    a gradient that never comes); evaluation leaves out nothing, and a rank may get an empty batch.

    Args:
        images: the whole split, on the device to train on.
        batch_size: images per rank and step.
        training: reshuffle at every epoch; evaluation keeps the order of the set.
        resample: draw every value x as Bernoulli(x) whenever it is read (dynamic binarisation).
        seed: of the order.
        rank: this process's number.
        world_size: number of processes.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        training: bool,
        resample: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.training = training
        self.resample = resample
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0  # batches of this epoch already handed out
        self._resume: dict[str, int] = {}

    def __len__(self) -> int:
        whole, left = divmod(len(self.images), self.batch_size * self.world_size)
        return whole + (left >= (self.world_size if self.training else 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: its body starts at the first batch, after the epoch was set.
        first = self._resume.get("position", 0) if self._resume.get("epoch") == self.epoch else 0
        self._resume = {}
        order = self._order()
        step = self.batch_size * self.world_size
        for i in range(first, len(self)):
            shared = order[i * step : (i + 1) * step]
            index = shared.tensor_split(self.world_size)[self.rank] if self.world_size > 1 else shared
            x, y = self.images.batch(index)
            self.position = i + 1
            yield (torch.bernoulli(x) if self.resample else x), y

    def _order(self) -> Tensor:
        if not self.training:
            return torch.arange(len(self.images), device=self.images.x.device)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.images), generator=generator).to(self.images.x.device)

    batch_sampler = None

    @property
    def sampler(self) -> Batches:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of epoch number `epoch`."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Returns where in which epoch the next batch lies."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the last batch handed out, if its epoch comes next; else starts the epoch from its first."""
        self._resume = dict(state) if state["position"] < len(self) else {}
