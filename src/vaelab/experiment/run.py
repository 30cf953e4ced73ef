"""One run: train, pick the best weights, test them once, report."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig

from vaelab.errors import Stopped, UserError
from vaelab.experiment.assemble import Parts, assemble
from vaelab.experiment.files import BEST, LAST, command, write_config, write_json
from vaelab.experiment.initialize import initialized, start_from
from vaelab.experiment.load import find_checkpoint, read_checkpoint
from vaelab.experiment.refit import keep_all_but_prior, keep_weights, refitted
from vaelab.experiment.report import flat, print_start, print_summary, to_hparams
from vaelab.experiment.resume import resumed
from vaelab.likelihoods import bits_per_dim
from vaelab.training import Interrupted, LossNotFinite

# Advice of Lightning's that does not apply here, or repeats what our own output says.
IRRELEVANT = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*exists and is not empty.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*GPU available but not used.*",
    ".*recommended to use `self.log.*sync_dist.*",
    ".*in eval mode at the start of training.*",
    ".*lr_scheduler.step.*before.*optimizer.step.*",
)


def run(cfg: DictConfig, *, directory: Path, overrides: Sequence[str]) -> float:
    """Trains, validates and tests what `cfg` describes, and writes everything about it into `directory`.

    Returns:
        The best of what `cfg.monitor` watches, of which `val/elbo` and `val/iwae` are in nats, for sweeps to maximise.

    Raises:
        UserError: for a mistake in the configuration or the data; nothing has been written then.
        Stopped: if a signal or a broken loss ended the training; its state has been saved.
    """
    quieten()
    checkpoint: Path | None = None
    if cfg.resume is not None:
        checkpoint = find_checkpoint(Path(str(cfg.resume)), LAST.name)
        cfg = resumed(cfg, directory, overrides)
    elif (directory / LAST).exists():
        raise UserError(
            f"{directory} already holds a run; continue it with resume={directory}, or choose another directory"
        )
    elif cfg.refit is not None and cfg.init_from is not None:
        raise UserError("refit and init_from each take their weights from a run; choose one of them")
    elif cfg.refit is not None:
        cfg = refitted(cfg, overrides)
    elif cfg.init_from is not None:
        cfg = initialized(cfg, overrides)
    check_networks(cfg, overrides)
    parts = assemble(cfg, directory, interactive=sys.stderr.isatty())
    if checkpoint is not None:
        check_resumable(parts, checkpoint, directory)
    if cfg.refit is not None:
        keep_all_but_prior(parts.model)
        if checkpoint is None:
            keep_weights(Path(str(cfg.refit)), parts, cfg)
    afresh: list[str] = []
    if cfg.get("init_from") is not None and checkpoint is None:
        afresh = start_from(Path(str(cfg.init_from)), parts.module, overrides)
    trainer, module = parts.trainer, parts.module
    if trainer.is_global_zero:
        write_config(directory, cfg, overrides, str(trainer.strategy.root_device))
        print_start(cfg, parts, directory, resumed=checkpoint, afresh=afresh)
    try:
        with parts.stop.handling():
            trainer.fit(module, datamodule=parts.data, ckpt_path=checkpoint, weights_only=True)
            return finish(cfg, parts, directory)
    except Interrupted as stop:
        raise interrupted(stop, directory) from None
    except LossNotFinite as error:
        raise Stopped(advice(error, directory), 1) from error


def finish(cfg: DictConfig, parts: Parts, directory: Path) -> float:
    """Scores the best weights on the validation split, and once on the test split; writes and prints the results."""
    trainer, module = parts.trainer, parts.module
    epochs, steps = trainer.current_epoch, module.batches_seen
    train = {k.replace("epoch/", "train/"): v for k, v in module.latest.items() if k.startswith("epoch/")}
    # Averaged weights are in the checkpoint already; the callback would swap in those of the last epoch.
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, WeightAveraging)]  # type: ignore[attr-defined]
    trainer.strategy.barrier()
    if (directory / BEST).is_file():
        module.load_state_dict(read_checkpoint(directory / BEST)["state_dict"])
    figures: dict[str, float] = {}
    if trainer.limit_val_batches:
        trainer.validate(module, datamodule=parts.data, verbose=False)
        figures |= {k: v for k, v in module.latest.items() if k.startswith("val/")}
    if trainer.limit_test_batches:
        trainer.test(module, datamodule=parts.data, verbose=False)
        figures |= {k: v for k, v in module.latest.items() if k.startswith("test/")}
    if module.is_bound and parts.data.support in parts.model.likelihood.probability_of:  # a code length, of the bound
        for split in [name.split("/")[0] for name in figures if name.endswith("/elbo")]:
            bits = bits_per_dim(torch.tensor(figures[f"{split}/elbo"]), parts.data.x_shape)
            figures[f"{split}/bits_per_dim"] = bits.item()
    if not trainer.is_global_zero:
        return figures.get(cfg.monitor, math.nan)
    metrics = {
        **figures,
        **train,
        "epochs": epochs,
        "steps": steps,
        "seconds": round(module.seconds, 3),
        **{f"parameters/{name}": size for name, size in parts.parameters().items()},
    }
    module.to(trainer.strategy.root_device)
    pictures = parts.pictures.save(parts.model, parts.data.splits["test"], directory)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            names = dict.fromkeys((cfg.monitor, "val/elbo", "test/elbo"))
            chosen = {f"best/{name.replace('/', '_')}": figures[name] for name in names if name in figures}
            to_hparams(logger, cfg, chosen)
        elif not isinstance(logger, CSVLogger):
            logger.log_hyperparams(flat(cfg))
        logger.finalize("success")
    write_json(directory / "metrics.json", metrics)
    print_summary(metrics, directory, pictures, is_bound=module.is_bound, grey=parts.data.support in ("levels", "unit"))
    return figures.get(cfg.monitor, math.nan)


def check_networks(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raises a UserError if networks are chosen for a model that has its own, where they would change nothing."""
    if cfg.model.get("encoder", "") is not None:
        return
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group in ("network", "model/encoder", "model/decoder"):
            raise UserError(
                f"this model has networks of its own, and {override.input_line} would change nothing; leave it out"
            )


def check_resumable(parts: Parts, checkpoint: Path, directory: Path) -> None:
    """Raises a UserError if the checkpoint belongs to other data or another model, or the run is already finished."""
    stored = read_checkpoint(checkpoint)
    mine, theirs = parts.module.config["derived"], stored["vaelab"]["config"]["derived"]
    for name in ("x_shape", "levels", "train_size", "num_classes", "mean", "std"):
        if mine[name] != theirs[name]:
            raise UserError(
                f"the data has changed since {checkpoint} was written: {name} was {theirs[name]}, is {mine[name]}"
            )
    epochs = parts.trainer.max_epochs
    if (directory / "metrics.json").is_file() and epochs is not None and 0 < epochs <= stored["epoch"] + 1:
        raise UserError(
            f"{directory} has finished its {epochs} epochs; to train on, add a larger number: "
            f"resume={directory} trainer.max_epochs={2 * epochs}"
        )


def interrupted(stop: Interrupted, directory: Path) -> Stopped:
    """Says where the state is and how to go on."""
    if stop.checkpoint is None:
        return Stopped(f"{stop}: stopped before the first batch was finished; nothing was saved", 128 + stop.signum)
    return Stopped(
        f"{stop}: stopped, and the state saved in {stop.checkpoint}\ncontinue with: {command()} resume={directory}",
        128 + stop.signum,
    )


def advice(error: LossNotFinite, directory: Path) -> str:
    """Says what broke, what is left and what may help."""
    last = directory / LAST
    left = (
        f"the last good checkpoint is {last}" if last.is_file() else "no epoch was finished, so there is no checkpoint"
    )
    return f"error: {error}; {left}; a lower optimizer.lr or trainer.gradient_clip_val=1 may help"


def quieten() -> None:
    """Leaves out what does not concern the user."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in IRRELEVANT:
        warnings.filterwarnings("ignore", message)
    torch.set_float32_matmul_precision("high")
