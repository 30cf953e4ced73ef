"""Batches under a Trainer: epochs, stops and resumption as a run has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from vaelab.data import ImageDataModule, Images

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice

Seen = list[tuple[int, list[int], bytes]]


class Stop(BaseException):
    pass


class Recorder(L.LightningModule):
    """Notes the epoch, the labels and the images of every training batch; stops behind batch `stop_after`."""

    def __init__(self, stop_after: int | None = None, checkpoint: Path | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_seen: Seen = []
        self.val_seen: list[list[int]] = []
        self.stop_after, self.checkpoint = stop_after, checkpoint

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        self.train_seen.append((self.current_epoch, y.tolist(), x.numpy().tobytes()))
        return self.weight * x.mean()

    def on_train_batch_end(self, *_: object) -> None:
        if self.stop_after == len(self.train_seen):
            self.trainer.save_checkpoint(self.checkpoint)
            raise Stop

    def on_validation_epoch_start(self) -> None:
        self.val_seen.append([])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.val_seen[-1] += batch[1].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture
def fit(
    tmp_path: Path, numbered: Callable[..., Images], module: Callable[..., ImageDataModule]
) -> Callable[..., Recorder]:
    """fit(stop_after, ...): three epochs of six batches, stopped behind one of them, or resumed."""

    def run(
        stop_after: int | None = None, resume: bool = False, data: dict | None = None, **trainer: object
    ) -> Recorder:
        given = {"val_size": 10, "batch_size": 8, "binarize": "dynamic", **(data or {})}
        images = module(numbered(57), numbered(9), **given)
        recorder = Recorder(stop_after, tmp_path / "stop.ckpt")
        options = {"max_epochs": 3, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"accelerator": "cpu", "enable_model_summary": False, "default_root_dir": tmp_path, **trainer}
        try:
            L.Trainer(**options).fit(recorder, datamodule=images, ckpt_path=tmp_path / "stop.ckpt" if resume else None)
        except Stop:
            assert len(recorder.train_seen) == stop_after
        return recorder

    return run


def labels(seen: Seen) -> list[int]:
    return [label for _, batch, _ in seen for label in batch]


def test_every_epoch_reads_the_training_split_once_in_another_order(fit) -> None:
    recorder = fit()
    epochs = [labels([batch for batch in recorder.train_seen if batch[0] == epoch]) for epoch in range(3)]
    assert len(set(epochs[0])) == len(epochs[0]) == 47
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert fit().train_seen == recorder.train_seen
    assert fit(data={"seed": 1}).train_seen != recorder.train_seen


def test_every_validation_reads_its_split_once_in_the_same_order(fit) -> None:
    recorder = fit(num_sanity_val_steps=2, data={"eval_batch_size": 4})
    sanity, *epochs = recorder.val_seen
    assert sanity == epochs[0][:8]
    assert len(set(epochs[0])) == len(epochs[0]) == 10
    assert epochs == [epochs[0]] * 3
    assert not set(epochs[0]) & set(labels(recorder.train_seen))


@pytest.mark.parametrize("stop_after", [1, 5, 6, 7, 12, 14])
def test_a_stopped_run_goes_on_with_exactly_the_batches_it_has_not_seen(fit, stop_after: int) -> None:
    whole = fit().train_seen
    assert len(whole) == 18
    stopped = fit(stop_after).train_seen
    resumed = fit(resume=True).train_seen
    assert stopped + resumed == whole


def test_a_finished_run_goes_on_with_the_next_epoch(fit, tmp_path: Path) -> None:
    whole = fit(max_epochs=3).train_seen
    first = fit(max_epochs=2)
    first.trainer.save_checkpoint(tmp_path / "stop.ckpt")
    assert first.train_seen + fit(resume=True, max_epochs=3).train_seen == whole


@pytest.mark.parametrize("stop_after", [2, 3, 4])
def test_short_epochs_are_resumed_alike(fit, stop_after: int) -> None:
    whole = fit(limit_train_batches=3).train_seen
    assert len(whole) == 9
    stopped = fit(stop_after, limit_train_batches=3).train_seen
    assert stopped + fit(resume=True, limit_train_batches=3).train_seen == whole


def test_overfitting_sees_the_same_batches_at_every_epoch(fit) -> None:
    recorder = fit(overfit_batches=2, data={"binarize": "none"})
    assert len(recorder.train_seen) == 6
    assert labels(recorder.train_seen[:2]) == labels(recorder.train_seen[2:4]) == labels(recorder.train_seen[4:])
