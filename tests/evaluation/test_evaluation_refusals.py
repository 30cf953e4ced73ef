"""What a metric refuses comes out of `python evaluate.py` as one line of error, or as a figure with a note."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from image_subjects import Oracle, by_name, shapes, subject

from vaelab.cli import CONF
from vaelab.evaluate import evaluate, main
from vaelab.evaluation import Anomaly, Reconstruction, Samples
from vaelab.experiment import run as train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    overrides = ["data=digits", "callbacks=quiet", "logger=none", "trainer.max_epochs=1", "model.latent_dim=3"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        train(compose("train", overrides=overrides), directory=folder, overrides=overrides)
    return folder


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("parts=[samples]", "limit=4"), "samples: k=5 and subsets=10 need at least 20 images, but there are 4"),
        (("parts=[samples]", "split=train"), "samples: .* choose split=test or val"),
        (("parts=[anomaly]", "anomaly.images=1"), "anomaly: at least 2 images of known classes"),
        (("parts=[disentanglement]", "disentanglement.bins=1"), "bins must be at least 2, but is 1"),
        (("parts=[annealing]", "annealing.limit=1"), "limit must be at least 2 images"),
    ],
)
def test_what_no_part_can_measure_is_one_line_without_a_traceback(
    run: Path,
    overrides: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", f"run={run}", *overrides])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert re.match(f"error: .*{words}", line)


def test_what_does_not_apply_is_a_figure_with_a_note(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("limit=30", "latents.mixture=5", "split=train")
    (figures,) = evaluate(run, "parts=[latents,disentanglement]", *quick).values()
    notes = {figure.name: figure.note for figure in figures if figure.value is None}
    assert "choose split=val or split=test" in notes["latents/knn"]
    assert "data=sprites has some" in notes["disentanglement/mig"]
    assert all(notes.values())
    shown = capsys.readouterr().out
    assert all(note in shown for note in notes.values())


def test_a_model_that_has_diverged_is_refused_instead_of_reported_as_nan(tmp_path: Path) -> None:
    broken = Oracle(clean=lambda x: x * math.nan, draws=lambda n: torch.full((n, 1, 8, 8), math.nan))
    with pytest.raises(ValueError, match="images must be finite"):
        Reconstruction()(subject(broken, tmp_path))
    with pytest.raises(ValueError, match="vectors must be finite"):
        Samples(steps=2, subsets=3)(subject(broken, tmp_path))
    improbable = Oracle(log_px=lambda x: torch.full((len(x),), -math.inf))
    with pytest.raises(ValueError, match="scores must be finite"):
        Anomaly(k=0)(subject(improbable, tmp_path))


def test_a_class_with_a_single_image_has_a_note_and_the_others_have_figures(tmp_path: Path) -> None:
    case = subject(Oracle(log_px=lambda x: -x.sum((1, 2, 3))), tmp_path)
    known = {name: images.subset((images.y == 0).nonzero().squeeze(1)) for name, images in case.splits.items()}
    test = shapes(90, 2).subset(torch.tensor([*range(0, 90, 3), *range(1, 90, 3), 2]))
    figures = by_name(Anomaly(k=0)(replace(case, splits={**known, "test": test})))
    assert figures["anomaly/class_2"].value is None
    assert "one image of this class is too few" in figures["anomaly/class_2"].note
    assert figures["anomaly/class_1/elbo/auroc"].value == figures["anomaly/classes/elbo/auroc"].value
