"""Two processes on one machine: the same figures, and nothing counted twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaelab import load
from vaelab.data import ImageDataModule
from vaelab.data.sources import Digits

ROOT = Path(__file__).parents[2]


def command(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", *arguments, f"hydra.run.dir={directory}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_reach_the_figures_of_one(train, tmp_path):
    options = ("data=digits", "trainer.max_epochs=8", "logger=none", "callbacks=quiet")
    train("one", *options[1:], "data.batch_size=32")
    command(tmp_path / "two", *options, "data.batch_size=16", "trainer.devices=2", "trainer.accelerator=cpu")
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert two["steps"] == one["steps"]
    data = ImageDataModule(source=Digits(), val_size=200, test_size=400)
    data.setup()
    x, _ = data.splits["test"].batch(slice(None))
    a, b = (load(tmp_path / name).elbo(x, num_samples=50).mean().item() for name in ("one", "two"))
    assert b == pytest.approx(a, abs=0.5)
    # What two processes report is the mean over all images, as one process computes it: up to the noise of one draw.
    assert two["test/elbo"] == pytest.approx(b, abs=0.5)


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path):
    import torch

    options = ("data=digits", "logger=none", "callbacks=quiet", "trainer.devices=2", "trainer.accelerator=cpu")
    command(tmp_path / "whole", *options, "trainer.max_epochs=4")
    command(tmp_path / "half", *options, "trainer.max_epochs=2")
    command(tmp_path / "half", f"resume={tmp_path / 'half'}", "trainer.max_epochs=4")
    one, two = (torch.load(tmp_path / n / "checkpoints/last.ckpt", weights_only=True) for n in ("whole", "half"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name
