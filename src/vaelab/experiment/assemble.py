"""The objects of a run, built from its configuration in the order in which they need each other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from vaelab.callbacks import Pictures, ProgressBar
from vaelab.checks import did_you_mean
from vaelab.data import ImageDataModule
from vaelab.errors import UserError
from vaelab.experiment.files import BEST, LAST
from vaelab.experiment.instantiate import build, refusal
from vaelab.models import Model
from vaelab.numerics import seeded
from vaelab.objectives import Adversarial, Objective
from vaelab.schedules import Constant, Schedule
from vaelab.training import AdversarialModule, AtomicCheckpointIO, GracefulStop, VAEModule

IDLE_REMEDY = (
    "choose model/prior=standard_normal, and fit another prior to the finished run with refit=RUN_DIR model/prior=..."
)


@dataclass
class Parts:
    """Everything that takes part in a run."""

    data: ImageDataModule
    module: VAEModule
    trainer: L.Trainer
    stop: GracefulStop
    pictures: Pictures

    @property
    def model(self) -> Model:
        """The model in training."""
        return self.module.model

    def parameters(self) -> dict[str, int]:
        """Returns the number of parameters by part of the model."""
        sizes = {name: sum(map(count, modules)) for name, modules in self.model.parts().items()}
        sizes = {name: size for name, size in sizes.items() if size or name != "condition"}
        return {**sizes, "total": sum(sizes.values())}


def assemble(cfg: DictConfig, directory: Path, *, interactive: bool) -> Parts:
    """Builds the parts, and fills in what `cfg.derived` promises.

    Args:
        cfg: the whole configuration.
        directory: of the run.
        interactive: whether to show progress bars.

    Raises:
        UserError: for anything that cannot be built, or parts that do not fit.
    """
    check_toplevel(cfg)
    L.seed_everything(cfg.seed, verbose=False)
    cfg.derived.run_dir = str(directory)
    data = load_data(cfg)
    stop = GracefulStop(directory / LAST)
    # Last but for the checkpoints: what it saves must hold what the other callbacks did with the batch.
    callbacks = [*build_callbacks(cfg, directory, interactive=interactive), stop]
    trainer = build_trainer(cfg, directory, callbacks)
    cfg.derived.steps_per_epoch = steps_per_epoch(data, trainer)
    module = build_module(cfg, data)
    pictures = next((c for c in callbacks if isinstance(c, Pictures)), Pictures())
    return Parts(data=data, module=module, trainer=trainer, stop=stop, pictures=pictures)


def check_toplevel(cfg: DictConfig) -> None:
    """Checks the entries that belong to no part."""
    if isinstance(cfg.seed, bool) or not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed must be a whole number from 0 to 2^32 - 1, but is {cfg.seed!r}")
    if not isinstance(cfg.compile, bool):
        raise UserError(f"compile must be true or false, but is {cfg.compile!r}")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if cfg.trainer.get(name) == 0:
            raise UserError(f"trainer.{name} must be a whole number of at least 1, but is 0")


def load_data(cfg: DictConfig) -> ImageDataModule:
    """Reads the data, and notes what other parts need to know of it."""
    data: ImageDataModule = build(cfg.data, "data")
    try:
        data.setup()
        mean, std = data.moments
    except ValueError as error:
        raise refusal(error, cfg.data, "data") from error
    with open_dict(cfg.derived):
        cfg.derived.update(
            x_shape=list(data.x_shape),
            levels=data.levels,
            train_size=len(data.splits["train"]),
            num_classes=data.num_classes,
            num_attributes=data.num_attributes,
            mean=mean,
            std=std,
        )
    return data


def build_module(cfg: DictConfig, data: ImageDataModule) -> VAEModule:
    """Builds the model, the objective and the optimizer, and checks that they fit each other and the data."""
    model, objective = build_model_and_objective(cfg, data)
    optimizer = build(cfg.optimizer, "optimizer")
    try:
        optimizer([nn.Parameter(torch.zeros(1))])  # complain now, not when training starts
    except (ValueError, TypeError) as error:
        raise refusal(ValueError(str(error)), cfg.optimizer, "optimizer") from error
    schedule = build(cfg.lr_schedule, "lr_schedule")
    make: type[VAEModule] = AdversarialModule if isinstance(objective, Adversarial) else VAEModule
    try:
        module = make(
            model=model,
            objective=objective,
            optimizer=optimizer,
            lr_schedule=schedule if isinstance(schedule, Schedule) and not isinstance(schedule, Constant) else None,
            plateau=None if isinstance(schedule, Schedule) else schedule,
            monitor=cfg.monitor,
            log_every_n_steps=cfg.trainer.log_every_n_steps,
            config=stored_config(cfg),
        )
    except ValueError as error:
        raise refusal(error, cfg.objective, "objective") from error
    if cfg.compile:
        if not objective.compiles:
            raise UserError(
                f"{type(objective).__name__} takes derivatives by z here, which a compiled model does not give; choose "
                "compile=false"
            )
        model.compile()
    return module


def build_model_and_objective(cfg: DictConfig, data: ImageDataModule) -> tuple[Model, Objective]:
    """Builds the model and the objective, and checks that they fit each other and the data."""
    model: Model = build(cfg.model, "model")
    try:
        model.likelihood.check_support(data.support, data.levels)
    except ValueError as error:
        raise UserError(f"model.likelihood: {error}") from error
    cfg.derived.latent_shape = list(model.latent_shape)
    objective: Objective = build(cfg.objective, "objective")
    check_fit(model, objective, data, monitor=cfg.monitor, whole=cfg.refit is None)
    return model, objective


def check_fit(model: Model, objective: Objective, data: ImageDataModule, *, monitor: str, whole: bool) -> None:
    """Scores two images, so that parts that do not fit each other are refused now and not when training starts.

    Args:
        model: the model.
        objective: what it is to be trained by.
        data: where the images come from.
        monitor: the figure of the validation that selects the best weights.
        whole: whether every parameter of the model is to be trained, and has to get a gradient.
    """
    images = data.splits["train"]
    index: Tensor | slice = slice(0, 2)
    if not images.num_attributes:  # the smallest and the largest label, of which one lies outside if any does
        index = torch.stack([images.y.argmin(), images.y.argmax()])
    x, y = images.batch(index)
    model.eval(), objective.eval()
    try:
        with seeded(0, x.device):
            terms = objective.terms(model, x, y, 0)
            loss, logs = objective(terms, 0)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"these parts do not fit each other: {error}") from error
    finally:
        model.train(), objective.train()
    figures = sorted(f"val/{name}" for name, value in logs.items() if isinstance(value, Tensor))
    if monitor not in figures:
        raise UserError(
            f"monitor must be a figure that {type(objective).__name__} gives, one of {', '.join(figures)}, but is "
            f"{monitor!r}{did_you_mean(str(monitor), figures)}"
        )
    if not whole:
        return
    loss.backward()
    idle = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    model.zero_grad()
    objective.zero_grad()
    if idle:
        raise UserError(
            f"these parts do not fit each other: model.{' and model.'.join(sorted(idle))} would learn nothing under "
            f"{type(objective).__name__} with such latents; {IDLE_REMEDY}"
        )


def stored_config(cfg: DictConfig) -> dict[str, Any]:
    """Returns what a checkpoint keeps of the configuration: plain values, enough to build the model again."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return {
        str(key): plain[key] for key in ("model", "data", "objective", "optimizer", "lr_schedule", "seed", "derived")
    }


def build_callbacks(cfg: DictConfig, directory: Path, *, interactive: bool) -> list[Callback]:
    """Builds the configured callbacks and those that write the checkpoints."""
    callbacks: list[Callback] = [build(node, f"callbacks.{name}") for name, node in cfg.callbacks.items() if node]
    if not interactive:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    for name in ("early_stopping", "weight_averaging"):
        if cfg[name]:
            callbacks.append(build(cfg[name], name))
    options: dict[str, Any] = {
        "dirpath": directory / LAST.parent,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    if cfg.trainer.limit_val_batches:
        every = cfg.trainer.check_val_every_n_epoch or 1
        best = ModelCheckpoint(filename=BEST.stem, monitor=cfg.monitor, mode="max", every_n_epochs=every, **options)
        callbacks.append(best)
    return [*callbacks, ModelCheckpoint(filename=LAST.stem, **options)]


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """Builds the configured loggers."""
    return [build(node, f"logger.{name}") for name, node in cfg.logger.items() if node]


def build_trainer(cfg: DictConfig, directory: Path, callbacks: list[Callback]) -> L.Trainer:
    """Builds the Trainer; its own complaints become one sentence."""
    loggers = build_loggers(cfg)
    make = build(cfg.trainer, "trainer", _partial_=True)
    shows_progress = any(isinstance(c, ProgressBar) for c in callbacks)
    try:
        trainer: L.Trainer = make(
            callbacks=callbacks,
            logger=loggers or False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=str(directory),
            enable_progress_bar=shows_progress,
        )
    except (ValueError, RuntimeError, TypeError, MisconfigurationException) as error:
        text = str(error).rstrip(".! ")
        if "accelerator" in text.lower() or "backend" in text.lower() or "device" in text.lower():
            text += "; trainer.accelerator=auto takes what this machine has, trainer.accelerator=cpu works everywhere"
        raise refusal(ValueError(text), cfg.trainer, "trainer") from error
    cores = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > cores:
        raise UserError(
            f"trainer.devices={cfg.trainer.devices} are more processes than this machine has cores, {cores}"
        )
    mixed = isinstance(trainer.precision_plugin, MixedPrecision)
    if mixed and cfg.trainer.gradient_clip_val and cfg.optimizer.get("fused"):
        raise UserError("a fused optimizer cannot clip gradients in mixed precision; add optimizer.fused=false")
    return trainer


def steps_per_epoch(data: ImageDataModule, trainer: L.Trainer) -> int:
    """Returns the number of training batches of an epoch, on every device."""
    try:
        total = data.steps_per_epoch(trainer.world_size)
    except ValueError as error:
        raise UserError(str(error)) from error
    limit = trainer.limit_train_batches
    if limit is None:
        return total
    return max(1, int(total * limit) if isinstance(limit, float) else min(total, limit))


def count(module: nn.Module) -> int:
    """Returns the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())
