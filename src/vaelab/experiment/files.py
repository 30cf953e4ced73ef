"""What a run leaves in its directory."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vaelab.errors import UserError

HYDRA_CONFIG = Path(".hydra/config.yaml")
BEST, LAST = Path("checkpoints/best.ckpt"), Path("checkpoints/last.ckpt")
PACKAGES = ("vaelab", "torch", "torchvision", "lightning", "hydra-core", "omegaconf", "tensorboard", "numpy")


def command() -> str:
    """Returns the training command as it can be typed here: from a checkout, or from anywhere once installed."""
    return "python train.py" if Path("train.py").is_file() else "vaelab-train"


def stored_config(directory: Path, key: str) -> DictConfig:
    """Returns the configuration, as it was composed, of the run in `directory`, which `key` named.

    Raises:
        UserError: if the directory holds no run, or the file is damaged.
    """
    file = directory / HYDRA_CONFIG
    if not file.is_file():
        raise UserError(f"{key}={directory} is no run directory ({HYDRA_CONFIG} is missing)")
    try:
        stored = OmegaConf.load(file)
    except Exception as error:  # YAML and OmegaConf raise many kinds
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())[:150]}); is it damaged?") from error
    if not isinstance(stored, DictConfig) or not {"data", "model"} <= set(stored):
        raise UserError(f"{file} is no configuration of a run; is it damaged?")
    return stored


def write_text(path: Path, text: str) -> None:
    """Writes a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file that is either whole or not there."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_config(directory: Path, cfg: DictConfig, overrides: Sequence[str], device: str) -> None:
    """Writes the configuration (resolved, and as composed), the overrides, and the versions with the seed.

    A resumed run adds its overrides to those it was started with.
    """
    write_text(directory / HYDRA_CONFIG, OmegaConf.to_yaml(cfg))
    write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    before = OmegaConf.to_container(OmegaConf.load(file)) if (file := directory / "overrides.yaml").is_file() else []
    assert isinstance(before, list)
    added = [o for o in overrides if not o.startswith("resume=")]
    write_text(file, OmegaConf.to_yaml(OmegaConf.create([*before, *added])))
    versions = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "seed": cfg.seed,
    }
    write_json(directory / "versions.json", {**versions, **{name: metadata.version(name) for name in PACKAGES}})
