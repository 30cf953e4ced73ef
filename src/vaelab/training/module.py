"""The LightningModule: a model, an objective and an optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from vaelab.metrics import NonFiniteError, Window, weighted_means
from vaelab.models import Model
from vaelab.numerics import get_rng_state, seed_rng, set_rng_state
from vaelab.objectives import Objective
from vaelab.schedules import Schedule

EVALUATION_SEED = 0
Batch = tuple[Tensor, Tensor]


class LossNotFinite(RuntimeError):
    """Training was stopped because a term became NaN or infinite."""


class VAEModule(L.LightningModule):
    """Trains a model by an objective, and reports both the objective and the true bound.

    Logged, in nats per image: `train|val|test/{loss,elbo,reconstruction,kl}`; also `beta`, `lr` and
    `images_per_second`. Training figures are collected on the device and brought to the host every `log_every_n_steps`
    batches. Validation and test draw their noise from a fixed seed: epochs are compared on the same noise, and
    evaluating more or less often changes no training run.

    Args:
        model: what is trained.
        objective: what is optimised.
        optimizer: called with the parameters.
        lr_schedule: factor of the learning rate by batches seen; None keeps it constant.
        plateau: instead, called with the optimizer; lowers the rate when the `monitor` stops rising.
        monitor: the figure of the validation that is watched, the un-annealed bound unless there is a reason.
        log_every_n_steps: batches between two reports.
        config: plain dictionary stored in every checkpoint, from which the model can be built again.
    """

    def __init__(
        self,
        *,
        model: Model,
        objective: Objective,
        optimizer: Callable[..., Optimizer],
        lr_schedule: Schedule | None = None,
        plateau: Callable[[Optimizer], ReduceLROnPlateau] | None = None,
        monitor: str = "val/elbo",
        log_every_n_steps: int = 50,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.make_optimizer = optimizer
        self.lr_schedule = lr_schedule
        self.make_plateau = plateau
        self.monitor = monitor
        self.log_every_n_steps = log_every_n_steps
        self.config = config or {}
        self.batches_seen = 0
        self.is_bound = True  # whether the figure called elbo bounds log p(x); a deterministic code has none
        self.seconds = 0.0  # spent in training, earlier parts of a resumed run included
        self.latest: dict[str, float] = {}  # the newest figure of every name
        self._window = Window()
        self._window_start = time.perf_counter()
        self._epoch_sums: Tensor | None = None
        self._evaluation = Window()
        self._train_rng: dict[str, Tensor] = {}
        self._validated_epoch = -1
        self._plateau: ReduceLROnPlateau | None = None
        self._resumed_plateau: dict[str, Any] | None = None
        self._resumed_rng: list[dict[str, Tensor]] = []
        self._clock = time.perf_counter()

    # ---- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        x, y = batch
        terms = self.objective.terms(self.model, x, y, self.batches_seen)
        loss, logs = self.objective(terms, self.batches_seen)
        self._window.add(logs, len(x))
        self.batches_seen += 1
        return loss

    def on_train_start(self) -> None:
        """Restores the random state of a resumed run, and that of its plateau schedule."""
        self._clock = self._window_start = time.perf_counter()
        if self._plateau is not None and self._resumed_plateau is not None:
            self._plateau.load_state_dict(self._resumed_plateau)
            self._resumed_plateau = None
        if self._resumed_rng:
            if self.global_rank < len(self._resumed_rng):
                set_rng_state(self._resumed_rng[self.global_rank], self.device)
            else:  # more devices than before
                seed_rng(torch.initial_seed() + self.global_rank, self.device)
            self._resumed_rng = []
        elif self.trainer.world_size > 1:
            seed_rng(torch.initial_seed() + self.global_rank, self.device)  # other noise on every device

    def on_train_epoch_start(self) -> None:
        """Starts the clock of the first window."""
        self._window_start = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Reports every few batches and behind the last one of an epoch."""
        last = batch_idx + 1 == self.trainer.num_training_batches
        if last or len(self._window) >= self.log_every_n_steps:
            self._report_window()
        if last:
            self._close_epoch()

    def _close_epoch(self) -> None:
        if len(self._window):
            self._report_window()
        if self._epoch_sums is not None:
            means = weighted_means(self._window.names, self._over_ranks(self._epoch_sums))
            self.latest |= {f"epoch/{name}": value for name, value in means.items()}
            self._epoch_sums = None

    def _report_window(self) -> None:
        sums = self._checked_sums(self._window, "train")
        now = time.perf_counter()
        figures = {f"train/{name}": value for name, value in weighted_means(self._window.names, sums).items()}
        figures |= self._window.scalars
        figures["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        figures["images_per_second"] = self._window.examples * self.trainer.world_size / (now - self._window_start)
        self._epoch_sums = sums if self._epoch_sums is None else self._epoch_sums + sums
        self._window.clear()
        self._window_start = now
        self._write(figures)

    def _checked_sums(self, window: Window, split: str) -> Tensor:
        """Returns the window's sums; where any device has a broken term, all of them stop together."""
        broken: NonFiniteError | None = None
        sums = torch.empty(0)
        try:
            sums = window.sums()
        except NonFiniteError as error:
            broken = error
        stop = broken is not None
        if self.trainer.world_size > 1:
            stop = self.trainer.strategy.reduce_boolean_decision(stop, all=False)
        if not stop:
            return sums
        what = f"{split}/{broken.term} became {broken.value}" if broken else "a term became NaN on another device"
        if split == "train":
            step = self.batches_seen - len(window) + (broken.offset if broken else 0)
            where = f"at step {step} (epoch {self.current_epoch + 1})"
        else:
            where = f"in the {split} pass after step {self.batches_seen} (epoch {self.current_epoch + 1})"
        raise LossNotFinite(f"training stopped {where}: {what}")

    # ---- evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects the objective and the bound of a validation batch."""
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collects the objective and the bound of a test batch."""
        self._evaluate(batch)

    def _evaluate(self, batch: Batch) -> None:
        x, y = batch
        size = len(x)
        if size == 0:  # of few images a device may get none, but it must report the same terms as the others
            x, y = x.new_zeros(1, *x.shape[1:]), y.new_zeros(1, *y.shape[1:])
        terms = self.model(x, y, num_samples=self.objective.num_samples)
        self.is_bound = terms.is_bound
        _, logs = self.objective(terms, self.batches_seen)
        self._evaluation.add({name: value for name, value in logs.items() if isinstance(value, Tensor)}, size)

    def on_validation_epoch_start(self) -> None:
        """Puts the training noise aside and seeds that of the evaluation."""
        self._evaluation.clear()
        self._train_rng = get_rng_state(self.device)
        seed_rng(EVALUATION_SEED + self.global_rank, self.device)

    def on_validation_epoch_end(self) -> None:
        """Reports the means over the split and goes back to the training noise."""
        self._report_evaluation("val")

    on_test_epoch_start = on_validation_epoch_start

    def on_test_epoch_end(self) -> None:
        """Reports the means over the split."""
        self._report_evaluation("test")

    def _report_evaluation(self, split: str) -> None:
        set_rng_state(self._train_rng, self.device)
        sums = self._over_ranks(self._checked_sums(self._evaluation, split))
        if self.trainer.state.fn == "fit":
            self._validated_epoch = self.current_epoch
        figures = {f"{split}/{name}": value for name, value in weighted_means(self._evaluation.names, sums).items()}
        for name, value in figures.items():
            # For callbacks that monitor a figure; the loggers get it below, at the step that counts batches.
            self.log(name, value, logger=False)
        if split == "val" and self.trainer.state.fn != "fit":
            self.latest |= figures  # of the best weights, after training: no point of the curve
        else:
            self._write(figures)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return sums
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return self.trainer.strategy.reduce(sums.to(self.device, dtype), reduce_op="sum").cpu()

    def _write(self, figures: dict[str, float]) -> None:
        self.latest |= figures
        for logger in self.loggers:
            logger.log_metrics({**figures, "epoch": self.current_epoch}, step=self.batches_seen)

    # ---- optimizer and checkpoints

    def parameter_groups(self) -> list[Any]:
        """Returns what the optimizer is called with: parameters, or groups of them with options of their own."""
        return [p for p in self.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """Builds the optimizer over all parameters of model and objective, and its learning-rate schedule."""
        optimizer = self.make_optimizer(self.parameter_groups())
        if self.make_plateau is not None:
            self._plateau = self.make_plateau(optimizer)
        if self.lr_schedule is not None:
            schedule = self.lr_schedule
            # A plain function: LambdaLR would store an object's state and restore its old length in a longer run.
            scheduler = LambdaLR(optimizer, lambda _: schedule(self.batches_seen))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        return optimizer

    def on_train_epoch_end(self) -> None:
        """Lets a plateau schedule look at the validation, of the un-annealed ELBO unless `monitor` says otherwise.

        Lightning would do so only after the epoch's checkpoint is written, and a resumed run would miss it.
        """
        self._close_epoch()  # of a run that ends in the middle of one
        if self._plateau is not None and self._validated_epoch == self.current_epoch:
            self._plateau.step(self.latest[self.monitor])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores what exact resumption needs beyond Lightning's own state: plain values and tensors only."""
        sums = self._epoch_sums
        if len(self._window):  # stopped in the middle of an epoch: its figures so far (and no checkpoint of a NaN)
            window = self._checked_sums(self._window, "train")
            sums = window if sums is None else sums + window
        state = get_rng_state(self.device)
        states = [state]
        if self.trainer.world_size > 1:
            states = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(states, state)
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = now
        checkpoint["vaelab"] = {
            "config": self.config,
            "batches_seen": self.batches_seen,
            "seconds": self.seconds,
            "rng": states,
            "epoch_sums": sums,
            "plateau": self._plateau.state_dict() if self._plateau is not None else None,
            "latest": self.latest,
        }

    def _checkpoint_callbacks(self) -> list[ModelCheckpoint]:
        callbacks = self.trainer.checkpoint_callbacks if self._trainer is not None else []
        return [c for c in callbacks if isinstance(c, ModelCheckpoint)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes back what `on_save_checkpoint` stored, and tells the callbacks where a moved run is now."""
        folder = next((c.dirpath for c in self._checkpoint_callbacks() if c.dirpath), None)
        for state in checkpoint.get("callbacks", {}).values():
            if folder and "dirpath" in state:
                state["dirpath"] = folder
                for name in ("best_model_path", "last_model_path", "kth_best_model_path"):
                    if state.get(name):
                        state[name] = str(Path(folder) / Path(state[name]).name)
                models = state.get("best_k_models", {})
                state["best_k_models"] = {str(Path(folder) / Path(path).name): v for path, v in models.items()}
        stored = checkpoint["vaelab"]
        self.batches_seen = stored["batches_seen"]
        self.seconds = stored["seconds"]
        self.latest = stored["latest"]
        self._epoch_sums = stored["epoch_sums"]
        self._resumed_plateau = stored["plateau"]
        self._resumed_rng = stored["rng"]
