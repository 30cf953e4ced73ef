"""What the terminal shows while a run trains."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from tqdm import tqdm

SHOWN = {"elbo": "elbo", "reconstruction": "rec", "kl": "kl"}


class ProgressBar(TQDMProgressBar):
    """One bar per epoch with the figures that matter, in nats per image; it disappears when the epoch ends.

    Args:
        refresh_rate: batches between refreshes.
    """

    def __init__(self, *, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Returns the newest training figures, and the validation ELBO."""
        latest: dict[str, float] = getattr(pl_module, "latest", {})
        shown = {short: f"{latest[f'train/{name}']:.1f}" for name, short in SHOWN.items() if f"train/{name}" in latest}
        if "val/elbo" in latest:
            shown["val_elbo"] = f"{latest['val/elbo']:.1f}"
        return shown

    def init_validation_tqdm(self) -> Tqdm:
        """Returns a hidden bar: validation is short, and its result is printed at the end of the epoch."""
        return Tqdm(disable=True)

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Names the epoch, counting from 1."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_end(self, *args: Any) -> None:
        """Removes the bar."""
        self.train_progress_bar.leave = False
        super().on_train_end(*args)


class EpochLines(L.Callback):
    """Prints a line per epoch (at most about `lines` of them in a run), above the progress bar if there is one.

    Args:
        lines: after how many lines to become sparser.
    """

    def __init__(self, *, lines: int = 100) -> None:
        self.lines = lines
        self._start = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock; a run resumed in the middle of an epoch has no other start."""
        self._start = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of the epoch."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the means of the epoch in nats per image."""
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
        every = max(1, math.ceil(epochs / self.lines))
        if not trainer.is_global_zero or (epoch % every and epoch != epochs):
            return
        latest: dict[str, float] = getattr(pl_module, "latest", {})
        parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}" if epochs > 0 else f"epoch {epoch}"]
        if "epoch/elbo" in latest:
            parts.append(f"train elbo {latest['epoch/elbo']:9.2f}")
        if "val/elbo" in latest:
            parts.append(
                f"val elbo {latest['val/elbo']:9.2f} "
                f"(reconstruction {latest['val/reconstruction']:.2f}, kl {latest['val/kl']:.2f})"
            )
        watched = getattr(pl_module, "monitor", "val/elbo")
        if watched != "val/elbo" and watched in latest:
            parts.append(f"{watched.replace('/', ' ').replace('_', ' ')} {latest[watched]:.4g}")
        parts.append(f"{time.perf_counter() - self._start:.1f} s")
        tqdm.write("  ".join(parts))
