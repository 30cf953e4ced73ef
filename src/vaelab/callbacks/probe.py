"""A classifier on the latents of a finished run: the second half of M1."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from vaelab.checks import positive_int
from vaelab.data import Images
from vaelab.errors import UserError
from vaelab.metrics import probe_accuracy
from vaelab.models import Model


class LatentProbe(L.Callback):
    """M1: trains classifiers on the posterior means of the labelled training images (Kingma et al. 2014, section 2.1).

    When the best weights are scored, it reports `val|test/probe_accuracy` (logistic regression) and
    `val|test/probe_svm_accuracy` (a support vector machine with a Gaussian kernel, which stands in for the transductive
    one of the paper). The classifiers see nothing but E_q[z|x] and the labels that `data.labels` leaves.

    Args:
        images: how many labelled training images are used at the most.
        batch_size: images encoded at once.

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(self, *, images: int = 5000, batch_size: int = 1000) -> None:
        self.images = positive_int("images", images)
        self.batch_size = positive_int("batch_size", batch_size)

    def on_fit_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuses what could not be probed in the end, before anything is trained.

        Raises:
            UserError: for data without two classes, or a model that does not encode without a label.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data.num_classes < 2:
            raise UserError("callbacks.probe needs data with two classes or more; leave it out with ~callbacks.probe")
        training = [module for module in pl_module.modules() if module.training]  # of a refit, not all of them
        try:
            pl_module.eval()
            self._encoded(pl_module.model, _labelled(data.splits["train"], 2))
        except ValueError as error:
            raise UserError(f"callbacks.probe encodes images without their labels: {error}") from error
        finally:
            for module in training:
                module.training = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Probes the validation split, when the training is over."""
        if trainer.state.fn == "validate":
            self._probe(trainer, pl_module, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Probes the test split."""
        self._probe(trainer, pl_module, "test")

    def _probe(self, trainer: L.Trainer, pl_module: Any, split: str) -> None:
        if not trainer.is_global_zero:
            return
        splits = trainer.datamodule.splits  # type: ignore[attr-defined]
        train = self._encoded(pl_module.model, _labelled(splits["train"], self.images))
        other = self._encoded(pl_module.model, splits[split])
        pl_module.latest |= {
            f"{split}/probe_accuracy": probe_accuracy(train, other, classifier="logistic_regression"),
            f"{split}/probe_svm_accuracy": probe_accuracy(train, other, classifier="svm"),
        }

    @torch.no_grad()
    def _encoded(self, model: Model, images: Images) -> tuple[Tensor, Tensor]:
        """Returns the posterior means (N, D) of images and their labels (N,)."""
        means = []
        for start in range(0, len(images), self.batch_size):
            x, _ = images.batch(slice(start, start + self.batch_size))
            means.append(model.encode(x.to(model.device, model.dtype)).mean.flatten(1))
        return torch.cat(means), images.y


def _labelled(images: Images, number: int) -> Images:
    """Returns the images that have a label, or `number` of them at random, as they may lie class by class."""
    (index,) = (images.y >= 0).nonzero(as_tuple=True)
    chosen = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:number]
    return images.subset(index[chosen.sort().values])
