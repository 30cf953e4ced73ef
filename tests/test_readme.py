"""What the README shows is what the project does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from vaelab.cli import CONF

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(main: str = "python train.py") -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line[line.index(main) :] for line in lines if main in line]


def test_there_are_commands():
    assert len(commands()) >= 15


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_composes(command):
    arguments = shlex.split(command, comments=True)[2:]
    if "--config-dir" in arguments:
        pytest.skip("the worked example has a test of its own")
    if "-m" in arguments:
        arguments = [a if a == "-m" else re.sub(r"=([^,\[]+),.*", r"=\1", a) for a in arguments]
        arguments.remove("-m")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=arguments)
    assert cfg.trainer._target_ == "lightning.Trainer"


@pytest.mark.parametrize("command", commands("python evaluate.py"))
def test_every_evaluation_of_the_readme_composes(command):
    arguments = shlex.split(command, comments=True)[2:]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("evaluate", overrides=arguments)
    assert set(cfg.parts) <= set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))


def test_the_quick_start_finishes_and_leaves_the_promised_files(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "data=digits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs").glob("*/*")
    promised = re.findall(r"`([a-z_]+\.(?:json|png|yaml|csv))`", README[README.index("## What a run leaves behind") :])
    for name in {*promised} - {"manifold.png", "latents.png"}:
        assert (run / name).is_file(), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert -26 < metrics["test/elbo"] < -23  # a mean image alone scores about -28
    assert str(run.relative_to(tmp_path)) in done.stdout

    from vaelab import load

    vae = load(run)
    assert torch.isfinite(vae.elbo(vae.sample(3))).all()


def test_the_worked_example_is_short_and_trains(tmp_path):
    start = README.index("### A part of your own")
    section = README[start : README.index("\n## ", start)]
    python, yaml, command = re.findall(r"^```(?:python|yaml|bash)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(python.splitlines()) + len(yaml.splitlines()) < 30
    files = re.findall(r"`(parts/[\w/]+\.(?:py|yaml))`", section)
    for name, text in zip(files, (python, yaml), strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    words = shlex.split(command.replace("python train.py", f"{sys.executable} {ROOT / 'train.py'}"))
    run = tmp_path / "run"
    done = subprocess.run(
        ["env", *words, "trainer.max_epochs=2", f"hydra.run.dir={run}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test/elbo"] > metrics["train/elbo"] - 50
    assert "student_t.StudentTLikelihood" in (run / "config.yaml").read_text()
