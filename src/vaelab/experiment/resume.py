"""Continuing a run with its own configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from vaelab.errors import UserError
from vaelab.experiment.files import stored_config

# What may change when a run goes on; anything else would make it another run.
FREE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.log_every_n_steps",
    "trainer.check_val_every_n_epoch",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
    "trainer.profiler",
    "logger",
    "callbacks",
    "early_stopping",
    "data.root",
    "data.path",
    "data.run",
    "data.device",
)


def resumed(cfg: DictConfig, directory: Path, overrides: Sequence[str]) -> DictConfig:
    """Returns the configuration of the run in `directory` with the `overrides` that may change it.

    Args:
        cfg: what the command line composed.
        directory: the run to go on with.
        overrides: the command line's overrides.

    Raises:
        UserError: if an override would make it another run, or the directory holds none.
    """
    stored = stored_config(directory, "resume")
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group.replace("/", ".")
        if key != "resume" and not any(key == free or key.startswith(f"{free}.") for free in FREE):
            raise UserError(
                f"resume continues a run as it was, and {override.input_line} would change it; leave it out, or start "
                f"a new run (what may change: {', '.join(FREE)})"
            )
    return overridden(stored, cfg, [word for word in overrides if not word.startswith("resume=")])


def overridden(stored: DictConfig, cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns `stored` with every entry that the command line's `overrides` name as it is in `cfg`."""
    with open_dict(stored):
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            key = override.package or override.key_or_group.replace("/", ".")
            if override.is_delete():
                above, _, last = key.rpartition(".")
                node = OmegaConf.select(stored, above) if above else stored
                if isinstance(node, DictConfig):
                    node.pop(last, None)
            else:
                OmegaConf.update(stored, key, OmegaConf.select(cfg, key), merge=False)
    return stored
