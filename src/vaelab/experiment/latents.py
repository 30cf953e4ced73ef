"""The latents of a finished run as data for another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from vaelab.data import ImageDataModule, Images
from vaelab.errors import UserError
from vaelab.experiment.files import stored_config
from vaelab.experiment.instantiate import build
from vaelab.experiment.load import load
from vaelab.numerics import seeded


class LatentDataModule(ImageDataModule):
    """The images of a finished run, each of them replaced by its latents: "images" of shape (D, 1, 1), or latent maps.

    The splits are those of the run, so that its test images stay unseen, and all of its images keep their labels (the
    same `labels` of the same run are the same images). What it binarises dynamically is drawn once here.

    Args:
        run: the run's directory.
        draw: take one draw of q(z|x) for every image, by the run's `split_seed`; else its mean, E_q[z|x].
        batch_size: as for images, and so are all others.

    Raises:
        ValueError: if there is no such run, its data is gone, or its model does not encode without a label.
    """

    def __init__(
        self,
        *,
        run: str | None,
        draw: bool = False,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        normalize: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        labels: int | None = None,
        labelled_per_batch: int | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        if run is None:
            raise UserError(
                "data=latents needs data.run=RUN_DIR, the directory of a finished run, for example of method=m1"
            )
        self.run = Path(run).expanduser()
        self.draw = draw
        self.images = images_of(self.run)
        super().__init__(
            source=self.images.source,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            normalize=normalize,
            mean=mean,
            std=std,
            labels=labels,
            labelled_per_batch=labelled_per_batch,
            split_seed=self.images.split_seed,
            seed=seed,
            device=device,
        )

    def _read(self) -> dict[str, Images]:
        """Returns the latents of all splits, with all labels."""
        self.images.setup()
        model = load(self.run)
        splits = {}
        for i, (name, images) in enumerate(self.images.splits.items()):
            parts = []
            with torch.no_grad(), seeded(self.split_seed + i, model.device):
                for start in range(0, len(images), self.images.eval_batch_size):
                    x, _ = images.batch(slice(start, start + self.images.eval_batch_size))
                    q = model.encode(x)
                    parts.append(q.sample() if self.draw else q.mean)
            z = torch.cat(parts).float()
            splits[name] = Images(x=z.view(len(z), z.shape[1], *(z.shape[2:] or (1, 1))), y=images.y, scale=1)
        return splits


def images_of(run: Path) -> ImageDataModule:
    """Returns the data of a run as it was configured, but with all labels and without draws that change.

    Raises:
        UserError: if there is no such run.
    """
    cfg = stored_config(run, "data.run")
    cfg.data.labels = cfg.data.labelled_per_batch = None
    if cfg.data.get("binarize") == "dynamic":
        cfg.data.binarize = "static"
    data: ImageDataModule = build(cfg.data, "data")
    return data
