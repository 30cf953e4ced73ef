"""`monitor` decides which weights are the best, for checkpoints, early stopping, schedules and sweeps alike."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vaelab import cli
from vaelab.errors import UserError
from vaelab.sweep import SweepTable, collect

IMPORTANCE_WEIGHTED = ("iwae", "dreg_iwae", "iwae_two_layers", "miwae", "piwae", "ciwae")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(cli.CONF)):
        return compose("train", overrides=[*overrides, "early_stopping=val_elbo"])


@pytest.mark.parametrize(
    ("overrides", "monitor"),
    [
        *(((f"method={method}",), "val/iwae") for method in IMPORTANCE_WEIGHTED),
        (("objective=iwae",), "val/iwae"),
        (("method=iwae", "monitor=val/elbo"), "val/elbo"),
        (("method=iwae_two_layers", "objective=elbo"), "val/elbo"),
        (("method=vae_gan",), "val/reconstruction"),
        ((), "val/elbo"),
    ],
    ids=str,
)
def test_the_bound_that_is_trained_selects_the_weights(overrides, monitor):
    cfg = composed(*overrides)
    assert cfg.monitor == cfg.early_stopping.monitor == monitor


def test_checkpoints_early_stopping_and_the_plateau_follow_the_importance_weighted_bound(train):
    options = ("early_stopping=val_elbo", "lr_schedule=plateau", "trainer.max_epochs=2", "objective.num_samples=3")
    run = train("run", "method=iwae", "logger=none", *options)
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    best = json.loads((run / "metrics.json").read_text())["val/iwae"]
    assert state["vaelab"]["plateau"]["best"] == pytest.approx(best)
    scores = {key: s for key, s in state["callbacks"].items() if "EarlyStopping" in key or "val/iwae" in key}
    assert len(scores) == 2
    for saved in scores.values():
        assert float(saved.get("best_score", saved.get("best_model_score"))) == pytest.approx(best)


def test_a_figure_that_nobody_gives_is_refused_before_training(train):
    with pytest.raises(UserError, match=r"monitor must be a figure that ELBO gives, one of .*val/elbo, .*'val/iwae'"):
        train("run", "monitor=val/iwae")


def job(directory: Path, monitor: str, **metrics: float) -> None:
    directory.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create({"monitor": monitor}), directory / "config.yaml")
    OmegaConf.save(OmegaConf.create([f"monitor={monitor}", f"seed={directory.name}"]), directory / "overrides.yaml")
    (directory / "metrics.json").write_text(json.dumps({k.replace("_", "/"): v for k, v in metrics.items()}))


def test_a_sweep_is_sorted_and_told_by_what_its_jobs_watch(tmp_path, capsys):
    job(tmp_path / "0", "val/iwae", val_elbo=-90.0, val_iwae=-89.0)
    job(tmp_path / "1", "val/iwae", val_elbo=-95.0, val_iwae=-85.0)
    (tmp_path / "2").mkdir()
    (tmp_path / "2/error.txt").write_text("seed=2\nit broke\n")
    assert [row["job"] for row in collect(tmp_path)] == ["1", "0", "2"]
    with pytest.raises(SystemExit):
        SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    table = capsys.readouterr().out
    assert "3 jobs, best val/iwae first" in table
    assert "-85.00" in table


def test_a_job_in_a_process_of_its_own_returns_what_it_watches(tmp_path, monkeypatch):
    job(tmp_path / "0", "val/iwae", val_elbo=-90.0, val_iwae=-89.0)
    done = SimpleNamespace(poll=lambda: 0, wait=lambda: 0)
    monkeypatch.setattr(cli.subprocess, "Popen", lambda _: done)
    assert cli.run_in_own_process([], tmp_path / "0") == -89.0
