"""Ctrl-C and SIGTERM: finish the batch, save a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L


class Interrupted(BaseException):
    """Training was stopped by a signal, after its state was saved. (No Exception: nothing may swallow it.)

    Attributes:
        signum: the signal's number; the conventional exit code is 128 more.
        checkpoint: where the state was saved, or None if training had not begun.
    """

    def __init__(self, signum: int, checkpoint: Path | None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.checkpoint = signum, checkpoint


AGREE_EVERY = 20


class GracefulStop(L.Callback):
    """Turns SIGINT and SIGTERM into a checkpoint at the end of the running batch and an `Interrupted`.

    A second signal stops at once. With several processes, all of them agree before they stop.

    Args:
        path: where to save the checkpoint.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._received: int | None = None
        self._active = False

    @contextmanager
    def handling(self) -> Iterator[None]:
        """Handles the signals inside the block, and restores the former handlers after it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = {signum: signal.getsignal(signum) for signum in self.SIGNALS}
        self._active = True
        self._install()
        try:
            yield
        finally:
            self._active = False
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _install(self) -> None:
        if self._active:
            for signum in self.SIGNALS:
                signal.signal(signum, self._handle)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals back from the Trainer, which installs handlers of its own whenever it starts."""
        self._install()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals back from the Trainer."""
        self._install()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals back from the Trainer."""
        self._install()

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Stops; the training is finished and saved."""
        if signum := self._agreed(trainer):
            raise Interrupted(signum, self.path)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and stops, except behind the last batch of an epoch, whose own checkpoint follows at once."""
        last = batch_idx + 1 == trainer.num_training_batches
        # Several processes must agree, which waits for the device: not at every batch.
        if last or (trainer.world_size > 1 and (batch_idx + 1) % AGREE_EVERY):
            return
        if signum := self._agreed(trainer):
            trainer.save_checkpoint(self.path)
            raise Interrupted(signum, self.path)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops before another epoch begins; the checkpoint of the last one holds everything."""
        if signum := self._agreed(trainer):
            raise Interrupted(signum, self.path if self.path.exists() else None)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops if a signal came after the last batch."""
        if signum := self._agreed(trainer):
            raise Interrupted(signum, self.path)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise Interrupted(signum, self.path if self.path.exists() else None)
        self._received = signum

    def _agreed(self, trainer: L.Trainer) -> int | None:
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)
            return (self._received or signal.SIGTERM) if stop else None
        return self._received
