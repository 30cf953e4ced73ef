"""The published tables: every override composes, and the Markdown says what was measured and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vaelab.cli import CONF
from vaelab.evaluation import Figure
from vaelab.experiment.evaluate import chosen

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "reproduce" / "reproduce.py"
spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
assert spec is not None
assert spec.loader is not None
reproduce = importlib.util.module_from_spec(spec)
sys.modules["reproduce"] = reproduce
spec.loader.exec_module(reproduce)

TABLES = reproduce.names()


def composed(name: str, words: list[str]) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(name, overrides=words)


def assert_holds(cfg: DictConfig, words: Sequence[str]) -> None:
    """Every key has the value that was asked for last, and what was to be left out is not there."""
    asked = {override.key_or_group: override for override in OverridesParser.create().parse_overrides(list(words))}
    for key, override in asked.items():
        if not (CONF / key).is_dir():  # else it is the choice of an option
            assert OmegaConf.select(cfg, key) == (None if override.is_delete() else override.value()), key


@pytest.mark.parametrize("scale", reproduce.SCALES)
@pytest.mark.parametrize("name", TABLES)
def test_overrides_compose(name: str, scale: str, tmp_path: Path) -> None:
    table = reproduce.read_table(name)
    commands = [table.training(run, scale, tmp_path) for run in table.runs]
    for words in {re.sub(r"\d+", "", " ".join(words)): words for words in commands}.values():  # one of each kind
        assert_holds(composed("train", words), words)
    for words in {tuple(table.evaluation(run, scale, tmp_path)) for run in table.runs}:
        cfg = composed("evaluate", ["run=run", *words])
        assert_holds(cfg, ["run=run", *words])
        assert list(chosen(cfg)) == list(cfg.parts)


@pytest.mark.parametrize("name", TABLES)
def test_rows_need_runs_and_figures_of_the_parts_that_are_evaluated(name: str) -> None:
    table = reproduce.read_table(name)
    assert {source for row in table.rows for source in row.sources} <= set(table.runs)
    for row in table.rows:
        for run in row.sources:
            words = table.evaluation(run, "small", Path())
            parts = re.findall(r"\w+", words[0].removeprefix("parts=")) if words else []
            assert row.figure.partition("/")[0] in (*parts, "train", "test")


def test_a_run_of_latents_gets_no_data_root(tmp_path: Path) -> None:
    table = reproduce.read_table("labels")
    assert "data.root=D" in table.training("m1_100", "small", tmp_path, ["data.root=D"])
    words = table.training("m1_m2_100", "small", tmp_path, ["data.root=D", "seed=1"])
    assert "data.root=D" not in words
    assert "seed=1" in words
    assert f"data.run={tmp_path}/m1_100" in words


@pytest.fixture
def fake() -> reproduce.Table:
    rows = (
        reproduce.Row(name="nll", run="a", figure="likelihood/bound", times=-1, published=84.5, protocol="k 5000"),
        reproduce.Row(name="error", run="a", figure="test/accuracy", times=-100, plus=100, of=100, published=(5, 8)),
        reproduce.Row(name="mean", runs=("a", "b"), figure="likelihood/bound", published=-80.0),
        reproduce.Row(name="missing", run="c", figure="likelihood/bound", published=70.0),
        reproduce.Row(name="unpublished", run="b", figure="likelihood/bound"),
    )
    runs = {run: reproduce.Run(train=(f"model.latent_dim={i}",)) for i, run in enumerate("abc", 1)}
    return reproduce.Table(
        name="fake",
        title="Fake",
        source="nobody",
        runs=runs,
        rows=rows,
        scales={scale: reproduce.Run() for scale in reproduce.SCALES},
        evaluate=("parts=[likelihood]",),
    )


def finished(folder: Path, run: str, latent_dim: int) -> None:
    (folder / run).mkdir(parents=True)
    (folder / run / "metrics.json").write_text(json.dumps({"test/accuracy": 0.9, "epochs": 3}))
    overrides = [f"model.latent_dim={latent_dim}", "data.root=/secret/place", "logger=none"]
    OmegaConf.save(OmegaConf.create(overrides), folder / run / "overrides.yaml")
    (folder / run / "versions.json").write_text(json.dumps({"device": "cpu", "seed": 0, "torch": "2.9"}))
    reproduce.record(folder / run, 90.0)


def test_markdown_of_fake_results(fake: reproduce.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path, "a", 1)
    finished(tmp_path, "b", 2)
    values = {"a": -85.0, "b": -87.0}
    asked = []

    def evaluate(run: Path, *words: str) -> dict[str, list[Figure]]:
        asked.append(words)
        return {str(run): [Figure("likelihood/bound", values[run.name], 0.25, "nats", {"split": "test", "k": 50})]}

    monkeypatch.setattr("vaelab.evaluate.evaluate", evaluate)
    extra = ["data.root=/secret/place"]
    measured = {run: reproduce.measure(fake, run, "small", tmp_path, extra) for run in fake.runs}
    page = reproduce.markdown(fake, "small", tmp_path, measured, extra)

    assert asked == [("parts=[likelihood]", "data_root=/secret/place")] * 2
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:4] for line in page.splitlines() if " | " in line}
    assert cells["nll"] == ["84.5", "85.00 ± 0.25", "+0.50"]
    assert cells["error"] == ["5 to 8", "10.00 ± 3.00", "+2.00"]  # binomial: 100 sqrt(0.9 * 0.1 / 100)
    assert cells["mean"] == ["-80", "-86.00 ± 1.00", "-6.00"]  # standard error over runs: sqrt(2) / sqrt(2)
    assert cells["missing"] == ["70", "", ""]
    assert cells["unpublished"] == ["", "-87.00 ± 0.25", ""]
    assert "published: k 5000; ours: epochs 3, split test, k 50" in page
    assert "| a | `model.latent_dim=1` | 1.5 |" in page
    assert "- Seed: 0" in page
    assert "torch 2.9" in page
    assert "reproduce.py fake scale=small\n" in page
    assert "secret" not in page
    assert str(tmp_path) not in page


def test_a_finished_run_that_cannot_be_evaluated_stops_before_a_page_is_written(
    fake: reproduce.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(tmp_path, "a", 1)
    (tmp_path / "a" / "evaluation.json").write_text("{")
    with pytest.raises(SystemExit, match=r"no run directory.*; no page was written"):
        reproduce.measure(fake, "a", "small", tmp_path, [])


def test_figures_of_training_say_how_images_were_binarised(fake: reproduce.Table, tmp_path: Path) -> None:
    finished(tmp_path, "a", 1)
    (tmp_path / "a" / "config.yaml").write_text("data: {binarize: dynamic}")
    found = reproduce.measure(replace(fake, evaluate=()), "a", "small", tmp_path, [])
    assert found["test/accuracy"].protocol == {"split": "test", "binarize": "dynamic", "epochs": 3}


def test_a_figure_within_the_published_range() -> None:
    row = reproduce.Row(name="auroc", figure="f", published=(88.2, 96.9), decimals=1)
    assert [reproduce.difference(row, value) for value in (90.0, 80.0, 97.0)] == ["within", "-8.2", "+0.1"]


def test_the_mean_is_empty_while_a_run_is_missing(fake: reproduce.Table) -> None:
    mean = fake.rows[2]
    assert reproduce.result(mean, {"a": {"likelihood/bound": reproduce.Measured(-85.0)}}) is None


def test_a_run_of_other_overrides_is_refused(fake: reproduce.Table, tmp_path: Path) -> None:
    finished(tmp_path, "a", 7)
    with pytest.raises(SystemExit, match="was trained with"):
        reproduce.train(fake, "a", "small", tmp_path, [])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The overrides of every training run that was asked for; none is started."""
    commands: list[list[str]] = []

    def run(words: list[str], **_: object) -> reproduce.subprocess.CompletedProcess:
        commands.append(words[2:])
        return reproduce.subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    return commands


def test_finished_runs_are_skipped_and_others_continued(
    fake: reproduce.Table, tmp_path: Path, commands: list[list[str]]
) -> None:
    finished(tmp_path, "a", 1)
    finished(tmp_path, "b", 2)
    (tmp_path / "b" / "metrics.json").unlink()
    (tmp_path / "b" / "checkpoints").mkdir()
    (tmp_path / "b" / "checkpoints" / "last.ckpt").touch()
    for name in fake.runs:
        reproduce.train(fake, name, "small", tmp_path, [])
    assert commands == [
        [f"resume={tmp_path / 'b'}"],
        ["callbacks=quiet", "model.latent_dim=3", f"hydra.run.dir={tmp_path / 'c'}"],
    ]


def test_nothing_names_a_place_of_data() -> None:
    files = [*SCRIPT.parent.glob("*.yaml"), *(ROOT / "docs" / "results").glob("*.md")]
    for file in files:
        text = file.read_text()
        assert "data.root" not in text, file
        assert "data_root" not in text, file
        assert not re.search(r"[\s=`']/(home|work|tmp|root|mnt|data)\b", text), file


def test_the_index_names_every_table() -> None:
    index = (ROOT / "docs" / "results" / "README.md").read_text()
    assert all(f"({name}.md)" in index for name in TABLES)
