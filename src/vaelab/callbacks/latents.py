"""Where the information is: the KL of every latent dimension."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from vaelab.callbacks import drawing
from vaelab.callbacks.loggers import log_picture
from vaelab.numerics import seeded


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
        x, y = trainer.datamodule.splits["val"].choice(self.images).batch(slice(None))  # type: ignore[attr-defined]
        with seeded(0, model.device):
            latents = model(x.to(model.device, model.dtype), y.to(model.device)).latents
        groups = {f"group_{i}/" if len(latents) > 1 else "": latent.kl_per_dim for i, latent in enumerate(latents, 1)}
        by_group = {name: channels(kl) for name, kl in groups.items() if kl is not None}
        if not by_group:
            return
        figures = {
            f"kl_per_dimension/{name}{i:03d}": v
            for name, kl in by_group.items()
            for i, v in enumerate(kl[: self.max_dimensions].tolist())
        }
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # one column for every dimension would drown the others
                logger.log_metrics(figures, step=pl_module.batches_seen)
        log_picture(
            trainer, "kl_per_dimension", drawing.kl_bars(torch.cat([*by_group.values()])), pl_module.batches_seen
        )


def channels(kl: Tensor) -> Tensor:
    """Averages a KL by dimension (B, D) or (B, D, h, w) over the batch and sums it over positions, (D,)."""
    return kl.mean(0).flatten(1).sum(1) if kl.ndim > 2 else kl.mean(0)
