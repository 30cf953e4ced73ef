"""Batches of an in-memory set: sharded, reshuffled by epoch, and resumable in the middle of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data.images import Images, bernoulli
from vaelab.data.labels import recurring


class Batches:
    """Iterates over (x, y) batches of one rank's shard, on the device of the model.

    The order of epoch e depends on (seed, e) alone, and every pass is another epoch. Every step takes the next
    `batch_size * world_size` images of that order and gives each rank a contiguous, near-equal part of them, so that R
    ranks with B images each see together what one process sees with R * B. When training, a last step of fewer than two
    images for every rank is left out (one image has no batch statistics, and no rank can wait for a gradient that never
    comes), unless it is the only one; evaluation leaves out nothing, and a rank may get an empty batch.

    With `labelled_per_batch` every training batch of a rank gets so many images that have a label besides: they come
    from an order of their own, which also depends on (seed, epoch) alone and in which all of them come equally often.

    Args:
        images: the whole split.
        batch_size: images per rank and step.
        training: shuffle; evaluation keeps the order of the set.
        reshuffle: take another order at every epoch; else that of epoch 0 comes back.
        resample: draw every value x as Bernoulli(x) whenever it is read (dynamic binarisation); the draws depend on
            seed, epoch, step and rank alone.
        labelled_per_batch: labelled images per rank and step that are added when training; 0 for none.
        seed: of the order and of the draws.
        rank: this process's number.
        world_size: number of processes.
        device: where a batch is converted and handed out; None is where the images lie.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        training: bool,
        reshuffle: bool = True,
        resample: bool = False,
        labelled_per_batch: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.training = training
        self.reshuffle = reshuffle
        self.resample = resample
        self.labelled_per_batch = labelled_per_batch if training else 0
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.epoch = 0
        self.position = 0  # steps of this epoch already handed out
        self._resumed = False

    @property
    def step_size(self) -> int:
        """Images per step on all ranks."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        whole, left = divmod(len(self.images), self.step_size)
        if self.training:
            return whole + (left >= self.world_size * (2 if whole else 1))
        return whole + (left > 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: its body starts at the first batch, after the epoch was set.
        self.position = first = self.position if self._resumed else 0
        self._resumed = False
        order, labelled = self._order(), self._labelled_order()
        for i in range(first, len(self)):
            index = self._share(order, i, self.batch_size)
            if labelled is not None:
                index = torch.cat([index, self._share(labelled, i, self.labelled_per_batch)])
            x, y = self.images.batch(index, self.device)
            if self.resample:
                x = bernoulli(x, generator_of(self.seed, self.epoch, 1 + i, self.rank, device=x.device))
            self.position = i + 1
            yield x, y
        self.set_epoch(self.epoch + 1)  # for loops without a Trainer to do it

    def _order(self) -> Tensor:
        device = self.images.x.device
        if not self.training:
            return torch.arange(len(self.images), device=device)
        generator = generator_of(self.seed, self._order_epoch)
        return torch.randperm(len(self.images), generator=generator).to(device)

    def _labelled_order(self) -> Tensor | None:
        """Returns the labelled images of all steps of an epoch, one after the other, or None if none are added."""
        if not self.labelled_per_batch:
            return None
        (index,) = (self.images.y >= 0).nonzero(as_tuple=True)
        length = len(self) * self.labelled_per_batch * self.world_size
        return recurring(index, length, generator_of(self.seed, self._order_epoch, 0, 1))

    @property
    def _order_epoch(self) -> int:
        return self.epoch if self.reshuffle else 0

    def _share(self, order: Tensor, step: int, size: int) -> Tensor:
        """Returns this rank's part of a step that takes `size` images per rank from an order."""
        size *= self.world_size
        index = order[step * size : (step + 1) * size]
        return index.tensor_split(self.world_size)[self.rank] if self.world_size > 1 else index

    batch_sampler = None

    @property
    def sampler(self) -> Batches:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of epoch number `epoch`; a new one starts from its first batch."""
        if epoch != self.epoch:
            self.epoch, self.position, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Returns the epoch and how many of its images, on all ranks, have been handed out."""
        return {"epoch": self.epoch, "seen": self.position * self.step_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the last batch handed out; behind the last one of an epoch, with the next epoch."""
        self.set_epoch(state["epoch"])
        self.position = state["seen"] // self.step_size
        self._resumed = True
        if self.position >= len(self):
            self.set_epoch(self.epoch + 1)


def generator_of(*words: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a generator whose stream depends on `words` (at least 0; trailing zeros do not count)."""
    seed = np.random.SeedSequence(words).generate_state(1, np.uint64).item()
    return torch.Generator(device).manual_seed(seed)
