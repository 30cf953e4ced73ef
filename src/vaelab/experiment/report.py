"""What a run prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard.summary import hparams

from vaelab.experiment.assemble import Parts
from vaelab.experiment.files import command


def print_start(cfg: DictConfig, parts: Parts, directory: Path, *, resumed: Path | None, afresh: Sequence[str]) -> None:
    """Says in a few lines what is about to be trained."""
    data, sizes = parts.data, parts.parameters()
    splits = ", ".join(f"{len(images):,} {name}" for name, images in data.splits.items())
    channels, height, width = data.x_shape
    values = f"{data.levels} grey levels in [0, 1]" if data.support == "levels" else f"{data.support}"
    print(f"data   {height}x{width}x{channels}, {splits}; values are {values}")
    print(
        f"model  latent {'x'.join(map(str, parts.model.latent_shape))}, "
        f"{sizes['encoder']:,} + {sizes['decoder']:,} parameters (encoder + decoder)"
        f"{' + ' + format(sizes['prior'], ',') + ' (prior)' if sizes['prior'] else ''}"
    )
    print(f"run    {directory} on {parts.trainer.strategy.root_device}, seed {cfg.seed}")
    if cfg.refit is not None:
        print(f"refit  only the prior is trained; everything else comes from {cfg.refit}")
    if cfg.get("init_from") is not None and resumed is None:
        rest = f"; afresh: {', '.join(afresh)}" if afresh else ""
        print(f"init   from the best weights of {cfg.init_from}{rest}")
    if resumed is not None:
        print(f"       resumed from {resumed}")


def print_summary(
    metrics: Mapping[str, float], directory: Path, pictures: Sequence[Path], *, is_bound: bool, grey: bool
) -> None:
    """Prints the final figures, where everything is, and what to type next."""
    table = Table(title="nats per image", title_justify="left")
    table.add_column("split")
    names = ("elbo", "reconstruction", "kl", "loss")
    for name in names:
        table.add_column(name, justify="right")
    for split, label in (("train", "train (last epoch)"), ("val", "validation"), ("test", "test")):
        if f"{split}/elbo" in metrics:
            table.add_row(label, *(f"{metrics[f'{split}/{name}']:.2f}" for name in names))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    known = {*names, "beta", "bits_per_dim"}
    others = {name: value for name, value in metrics.items() if name.startswith("test/") and name[5:] not in known}
    if others:
        print("test      " + ", ".join(f"{name[5:].replace('_', ' ')} {value:.4g}" for name, value in others.items()))
    if not is_bound:
        console.print("A deterministic code has no ELBO: what stands in its place is the reconstruction term alone.")
    elif grey:
        console.print(
            "Grey values were scored as they are: compare with figures of grey data only, not of binarised data."
        )
    minutes, seconds = divmod(metrics["seconds"], 60)
    console.print(
        f"{counted(metrics['epochs'], 'epoch')}, {counted(metrics['steps'], 'step')} in "
        f"{int(minutes)} min {seconds:.1f} s"
    )
    console.print(f"run       {directory}")
    console.print(f"pictures  {', '.join(p.name for p in pictures)}")
    console.print(f"watch     tensorboard --logdir {directory}")
    console.print(f"go on     {command()} resume={directory} trainer.max_epochs={2 * int(metrics['epochs'])}")


def counted(number: float, what: str) -> str:
    """Returns a number of things in words."""
    return f"{int(number)} {what}{'' if number == 1 else 's'}"


def to_hparams(logger: TensorBoardLogger, cfg: DictConfig, figures: Mapping[str, float]) -> None:
    """Shows a run in TensorBoard's HPARAMS view, with these figures and all of its scalars.

    Lightning's `log_hyperparams` would fix the figures once and for all: those that another command, or another run
    below the same directory, adds later were never shown.
    """
    logger.hparams = flat(cfg)
    _, start, end = hparams(logger.hparams, {})
    writer = logger.experiment._get_file_writer()
    writer.add_summary(start)
    writer.add_summary(end)
    logger.log_metrics(dict(figures), 0)


def flat(cfg: DictConfig) -> dict[str, Any]:
    """Returns the configuration as dotted keys and plain values, as a table of hyper-parameters wants it."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    found: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                found[f"{prefix}{key}"] = value if isinstance(value, (int, float, str, bool)) else str(value)

    assert isinstance(plain, dict)
    walk({k: plain[k] for k in ("data", "model", "objective", "optimizer", "lr_schedule", "seed")}, "")
    return {k: v for k, v in found.items() if not k.endswith("_partial_")}
