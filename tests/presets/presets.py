from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from vaelab.cli import CONF

PRESETS = sorted(p.stem for p in (CONF / "method").glob("*.yaml"))
# Presets that start from another run, and the overrides that make it.
STARTS_FROM = {"m1_m2": ("m1", ("data=latents", "data.run={run}"))}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("train", overrides=list(overrides))


def arguments(preset: str, runs: Path) -> tuple[str, ...]:
    """Returns how a preset is asked for on digits."""
    if preset in STARTS_FROM:
        start, extra = STARTS_FROM[preset]
        return (f"method={preset}", *(word.format(run=runs / start) for word in extra))
    return ("data=digits", f"method={preset}")
