"""Samples, reconstructions and two-dimensional latent spaces, drawn after every validation and once at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
from PIL import Image
from torch import Tensor

from vaelab.callbacks import drawing
from vaelab.callbacks.loggers import as_uint8, log_picture
from vaelab.data import Images
from vaelab.models import Model


class Pictures(L.Callback):
    """Shows pictures to the loggers after every `every_n_epochs`-th validation, and saves them as PNG at the end.

    `samples`: a 4x4 grid from the prior; `reconstructions`: originals above reconstructions; and for two latent
    dimensions `manifold` and `latents` (posterior means coloured by label). Nothing here draws from the training noise.

    Args:
        every_n_epochs: epochs between pictures; 0 draws only at the end.
        scatter_images: how many images the scatter of posterior means shows at the most.
    """

    def __init__(self, *, every_n_epochs: int = 1, scatter_images: int = 5000) -> None:
        self.every_n_epochs = every_n_epochs
        self.scatter_images = scatter_images

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Draws from the validation images."""
        if (
            trainer.state.fn != "fit"
            or not trainer.is_global_zero
            or trainer.sanity_checking
            or not self.every_n_epochs
        ):
            return
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 and any(trainer.loggers):
            images = trainer.datamodule.splits["val"]  # type: ignore[attr-defined]
            for name, picture in self._drawn(pl_module.model, images):
                log_picture(trainer, name, picture, pl_module.batches_seen)

    def save(self, model: Model, images: Images, folder: Path) -> list[Path]:
        """Draws the pictures from `images` and saves them as PNG files in `folder`."""
        paths = []
        for name, picture in self._drawn(model, images):
            paths.append(folder / f"{name}.png")
            Image.fromarray(as_uint8(picture)).save(paths[-1])
        return paths

    def _drawn(self, model: Model, images: Images) -> Iterator[tuple[str, Tensor]]:
        training = model.training
        model.eval()
        x, y = chosen(images, 32, model)
        shown = (0.0, 1.0) if images.support != "real" else (float(x.min()), float(x.max()))
        yield "samples", drawing.samples(model, y, value_range=shown)
        yield "reconstructions", drawing.reconstructions(model, x, y, value_range=shown)
        if model.is_plane:
            if not model.condition.dim:
                yield "manifold", drawing.manifold(model, value_range=shown)
            yield "latents", drawing.latent_scatter(model, *chosen(images, self.scatter_images, model))
        model.train(training)


def chosen(images: Images, number: int, model: Model) -> tuple[Tensor, Tensor]:
    """Returns `number` images at the most, (N, C, H, W) in the model's precision, and their labels."""
    x, y = images.choice(number).batch(slice(None))
    return x.to(model.dtype), y
