"""Where the information is: the KL of every latent dimension."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger

from vaelab.callbacks import drawing
from vaelab.callbacks.loggers import log_picture
from vaelab.models import Latent


class LatentMonitor(L.Callback):
    """Logs `kl_per_dimension/000`, ... in nats, averaged over validation images, and a bar chart of them.

    Latent maps are summed over positions, so that a figure stands for a channel. Posteriors that do not factorise have
    no such figures.

    Args:
        images: how many validation images are averaged over.
        max_dimensions: the most dimensions that get a curve of their own; the bar chart shows all of them.
    """

    def __init__(self, *, images: int = 1000, max_dimensions: int = 64) -> None:
        self.images = images
        self.max_dimensions = max_dimensions

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Computes and logs the KL by dimension."""
        if trainer.state.fn != "fit" or not trainer.is_global_zero or trainer.sanity_checking or not trainer.loggers:
            return
        model = pl_module.model
        x, _ = trainer.datamodule.splits["val"].batch(slice(0, self.images))  # type: ignore[attr-defined]
        q = model.encode(x)
        kl = Latent(z=q.mean.unsqueeze(0), q=q, p=model.prior()).kl_per_dim
        if kl is None:
            return
        kl = kl.mean(0).flatten(1).sum(1) if kl.ndim > 2 else kl.mean(0)
        figures = {f"kl_per_dimension/{i:03d}": v for i, v in enumerate(kl[: self.max_dimensions].tolist())}
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # one column for every dimension would drown the others
                logger.log_metrics(figures, step=pl_module.batches_seen)
        log_picture(trainer, "kl_per_dimension", drawing.kl_bars(kl), pl_module.batches_seen)
