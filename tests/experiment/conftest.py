from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from vaelab.cli import CONF
from vaelab.experiment import run

Run = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Run:
    """Trains in this process: train("name", "key=value", ...) returns the run's directory below tmp_path."""

    def _train(name: str, *overrides: str, base: tuple[str, ...] = ("data=digits", "callbacks=quiet")) -> Path:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        arguments = [*base, *overrides]
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = compose("train", overrides=arguments)
        run(cfg, directory=directory, overrides=arguments)
        return directory

    return _train


@pytest.fixture
def resume(tmp_path: Path) -> Run:
    """Resumes in this process: resume("name", "key=value", ...)."""

    def _resume(name: str, *overrides: str) -> Path:
        directory = tmp_path / name
        arguments = [f"resume={directory}", *overrides]
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = compose("train", overrides=arguments)
        run(cfg, directory=directory, overrides=arguments)
        return directory

    return _resume
