"""Loggers: a CSV file that outlives resumption, and one way to give a picture to any logger."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor


class RunCSVLogger(CSVLogger):
    """Writes `metrics.csv` in the run's directory, and appends to it when the run is resumed.

    (Lightning's own deletes the file of the former part.)

    Args:
        save_dir: the run's directory.
    """

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir=save_dir, name="", version="", flush_logs_every_n_steps=20)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            path = Path(self.log_dir) / "metrics.csv"
            kept = path.read_text() if path.is_file() else None
            path.unlink(missing_ok=True)
            writer = super().experiment
            if kept:
                path.write_text(kept)
                writer.metrics_keys = next(csv.reader(kept.splitlines()), [])
        return super().experiment


def log_picture(trainer: L.Trainer, name: str, picture: Tensor, step: int) -> None:
    """Gives a picture (3, H, W) with values in [0, 1] to every logger that can show one."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [as_uint8(picture)], step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, as_uint8(picture), key=name, step=step)


def as_uint8(picture: Tensor) -> np.ndarray:
    """Turns a picture (3, H, W) with values in [0, 1] into bytes (H, W, 3)."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
