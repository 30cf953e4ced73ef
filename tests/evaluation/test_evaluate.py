"""`python evaluate.py` on finished runs."""

import json
import math
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context

from vaelab import load
from vaelab.cli import CONF
from vaelab.errors import UserError
from vaelab.evaluate import evaluate
from vaelab.evaluation import Figure, Likelihood
from vaelab.experiment import run as train
from vaelab.experiment.evaluate import difference, print_figures
from vaelab.experiment.results import Unfinished
from vaelab.metrics.importance import importance_bound
from vaelab.numerics import seeded

QUICK = ("parts=[likelihood]", "likelihood.k=20", "limit=30")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two variational runs and a deterministic one."""
    folder = tmp_path_factory.mktemp("runs")
    for name, method in (("one", "vae"), ("two", "vae"), ("plain", "ae")):
        overrides = ["data=digits", "callbacks=quiet", "trainer.max_epochs=1", f"method={method}", "model.latent_dim=3"]
        if name != "one":
            overrides.append("logger=none")
        (folder / name).mkdir()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            train(compose("train", overrides=overrides), directory=folder / name, overrides=overrides)
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def stored(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def test_the_file_holds_every_figure_with_its_error_its_protocol_and_the_settings(runs):
    figures = evaluate(runs / "one", *QUICK)[str(runs / "one")]
    (part,) = stored(runs / "one")["likelihood"]
    assert part["settings"]["split"] == "test"
    assert part["settings"]["limit"] == 30
    assert part["settings"]["seed"] == 0
    assert part["settings"]["options"]["k"] == 20
    assert part["seconds"] > 0
    found = {figure["name"]: figure for figure in part["figures"]}
    assert list(found) == [figure.name for figure in figures]
    bound = found["likelihood/bound"]
    assert bound["unit"] == "nats"
    assert {"split": "test", "images": 30, "k": 20}.items() <= bound["protocol"].items()
    assert bound["error"] > 0
    assert found["likelihood/elbo"]["value"] == pytest.approx(
        found["likelihood/reconstruction"]["value"] - found["likelihood/kl"]["value"]
    )


def test_the_bound_is_that_of_the_loaded_model_on_the_runs_own_test_images(runs):
    (figures,) = evaluate(runs / "one", "likelihood.k=200", "parts=likelihood").values()
    bound = next(figure for figure in figures if figure.name == "likelihood/bound")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", ["data=digits", "model.latent_dim=3"])
    from vaelab.experiment.instantiate import build

    data = build(cfg.data, "data")
    data.setup()
    x, _ = data.splits["test"].batch(slice(None))
    with seeded(5, torch.device("cpu")):
        own = importance_bound(load(runs / "one"), x, k=200)
    assert bound.protocol["images"] == len(x)
    assert bound.error == pytest.approx(own.std().item() / math.sqrt(len(x)), rel=0.05)
    assert bound.value == pytest.approx(own.mean().item(), abs=0.1)  # other noise, the same images


def test_what_was_measured_with_the_same_settings_is_not_measured_again(runs, monkeypatch):
    calls = []
    original = Likelihood.__call__
    monkeypatch.setattr(Likelihood, "__call__", lambda self, subject: calls.append(self.k) or original(self, subject))
    first = evaluate(runs / "one", *QUICK)
    again = evaluate(runs / "one", *QUICK)
    assert calls == [20]
    assert first == again
    evaluate(runs / "one", *QUICK, "likelihood.k=21")
    evaluate(runs / "one", *QUICK, "likelihood.k=21", "split=val")
    evaluate(runs / "one", *QUICK, "likelihood.k=21", "split=val", "again=true")
    assert calls == [20, 21, 21, 21]
    shutil.copy(runs / "two/checkpoints/best.ckpt", runs / "one/checkpoints/best.ckpt")
    os.utime(runs / "one/checkpoints/best.ckpt", (1, 1))
    evaluate(runs / "one", *QUICK)
    assert calls == [20, 21, 21, 21, 20]


def test_a_quick_look_replaces_no_figures(runs, monkeypatch):
    calls = []
    original = Likelihood.__call__
    monkeypatch.setattr(Likelihood, "__call__", lambda self, subject: calls.append(self.k) or original(self, subject))
    first = evaluate(runs / "one", *QUICK)[str(runs / "one")]
    evaluate(runs / "one", *QUICK, "likelihood.k=2", "limit=2")
    assert [entry["settings"]["limit"] for entry in stored(runs / "one")["likelihood"]] == [2, 30]
    again = evaluate(runs / "one", *QUICK)[str(runs / "one")]
    assert calls == [20, 2]
    assert again == first
    assert all(torch.equal(a.values, b.values) for a, b in zip(again, first, strict=True) if a.values is not None)
    evaluate(runs / "one", *QUICK, "again=true")
    assert calls == [20, 2, 20]
    assert len(stored(runs / "one")["likelihood"]) == 2


def test_figures_of_weights_that_are_no_more_are_dropped(runs):
    evaluate(runs / "one", *QUICK)
    shutil.copy(runs / "two/checkpoints/best.ckpt", runs / "one/checkpoints/best.ckpt")
    os.utime(runs / "one/checkpoints/best.ckpt", (1, 1))
    evaluate(runs / "one", *QUICK, "limit=20")
    assert [entry["settings"]["limit"] for entry in stored(runs / "one")["likelihood"]] == [20]


def test_a_checkpoint_is_evaluated_beside_its_run(runs, capsys):
    last = runs / "one/checkpoints/last.ckpt"
    found = evaluate([runs / "one", last], *QUICK)
    assert list(found) == [str(runs / "one"), str(last)]
    assert not (runs / "one/checkpoints/evaluation.json").exists()
    names = [entry["settings"]["checkpoint"].split()[0] for entry in stored(runs / "one")["likelihood"]]
    assert names == ["last.ckpt", "best.ckpt"]
    assert f"{runs / 'one'} (last.ckpt)" in capsys.readouterr().out.replace("\n", "")


def test_pictures_are_named(runs, capsys):
    evaluate(runs / "one", "parts=[latents]", "limit=50", "latents.train_images=50")
    assert "drawn    latents.csv, latents_kl.png" in capsys.readouterr().out
    evaluate(runs / "one", "parts=[latents]", "limit=50", "latents.train_images=50")
    assert "drawn" not in capsys.readouterr().out


def test_a_part_keeps_the_figures_of_the_others(runs):
    evaluate(runs / "one", *QUICK)
    evaluate(runs / "one", "parts=[annealing]", "annealing.limit=2", "annealing.steps=2", "annealing.simulated=2")
    assert list(stored(runs / "one")) == ["likelihood", "annealing"]


def test_the_same_seed_gives_the_same_figures_and_another_one_others(runs):
    one, same, other = (
        evaluate(runs / "one", *QUICK, f"seed={seed}", "again=true")[str(runs / "one")][0].value for seed in (0, 0, 1)
    )
    assert one == same != other


def test_a_pattern_names_several_runs(runs):
    found = evaluate(runs / "[ot]*", *QUICK)
    assert sorted(Path(name).name for name in found) == ["one", "two"]
    assert all((runs / name / "evaluation.json").is_file() for name in ("one", "two"))
    assert not (runs / "plain/evaluation.json").exists()


def test_several_runs_are_compared_image_by_image(runs, capsys):
    found = evaluate(runs / "[ot]*", *QUICK)
    one, two = (next(f for f in found[str(runs / name)] if f.name == "likelihood/bound") for name in ("one", "two"))
    assert difference(one, one) == (0.0, 0.0)
    mean, error = difference(one, two)
    assert mean == pytest.approx(one.value - two.value)
    assert error == pytest.approx((one.values - two.values).std().item() / math.sqrt(30))
    assert error < one.error  # an image that is hard for both drops out
    shown = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(shown) if line.startswith("likelihood/bound  best first"))
    best, other = sorted((one, two), key=lambda figure: -figure.value)
    assert f"{best.value:.2f}" in shown[start + 1]
    assert f"{difference(other, best)[0]:+.3f} ±" in shown[start + 2]
    again = evaluate(runs / "[ot]*", *QUICK)  # from what is stored
    pair = [next(f for f in again[str(runs / name)] if f.name == "likelihood/bound") for name in ("one", "two")]
    assert difference(*pair) == (mean, error)


def test_figures_of_other_images_or_settings_are_not_compared(runs, capsys):
    bounds = []
    for extra in ((), ("limit=31",), ("likelihood.k=21",), ("split=val",)):
        figures = evaluate(runs / "one", *QUICK, *extra)[str(runs / "one")]
        bounds.append(next(f for f in figures if f.name == "likelihood/bound"))
    assert [difference(bounds[0], other) for other in bounds[1:]] == [None] * 3
    assert difference(bounds[0], replace(bounds[0], data=1)) is None
    (runs / "one/evaluation_values.npz").write_bytes(b"nothing")
    figures = evaluate(runs / "one", *QUICK, "split=val")[str(runs / "one")]  # the stored figures are still there
    assert all(f.values is None for f in figures)
    assert "best first" not in capsys.readouterr().out


def test_a_run_that_cannot_be_evaluated_does_not_stop_the_others(runs, capsys):
    (runs / "one/checkpoints/best.ckpt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"1 of 3 runs could not be evaluated: .*one"):
        evaluate(runs / "*", *QUICK)
    assert (runs / "two/evaluation.json").is_file()
    assert "could not be read as a checkpoint" in capsys.readouterr().err


def test_a_deterministic_code_gets_reasons_instead_of_numbers(runs):
    (figures,) = evaluate(runs / "plain", *QUICK).values()
    found = {figure.name: figure for figure in figures}
    for name in ("likelihood/elbo", "likelihood/bound", "likelihood/bits_per_dim"):
        assert found[name].value is None
        assert "no density" in found[name].note
    assert found["likelihood/reconstruction"].value is not None


def hparams_view(folder: Path) -> tuple[set[str], set[str]]:
    """Returns the hyper-parameters and the figures that TensorBoard's HPARAMS view shows of the runs below a folder."""
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    backend = Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))
    metadata = backend.hparams_metadata(RequestContext(), "")
    found = backend.experiment_from_metadata(RequestContext(), "", True, metadata, None)
    return {info.name for info in found.hparam_infos}, {info.name.tag for info in found.metric_infos}


def test_figures_reach_tensorboard_of_a_run_that_has_one(runs):
    hparams, figures = hparams_view(runs / "one")
    assert {"model.latent_dim", "objective.beta", "optimizer.lr", "seed"} <= hparams
    assert {"best/val_elbo", "best/test_elbo"} <= figures
    assert "evaluation/likelihood/bound" not in figures
    evaluate(runs / "one", *QUICK)
    evaluate(runs / "two", *QUICK)
    again, figures = hparams_view(runs / "one")
    assert again == hparams
    assert {"best/test_elbo", "evaluation/likelihood/bound"} <= figures
    assert not (runs / "two/tensorboard").exists()


def test_an_interrupted_part_goes_on_with_the_next_image(runs, monkeypatch):
    words = ("parts=[likelihood]", "likelihood.k=5000", "limit=12")  # an image at once
    (whole,) = evaluate(runs / "two", *words).values()
    scored = []

    def bound(model, x, *arguments, **options):
        if len(scored) == 7:
            raise KeyboardInterrupt
        scored.append(x)
        return importance_bound(model, x, *arguments, **options)

    monkeypatch.setattr(sys.modules["vaelab.evaluation.likelihood"], "importance_bound", bound)
    with pytest.raises(KeyboardInterrupt):
        evaluate(runs / "one", *words)
    assert not (runs / "one/evaluation.json").exists()
    assert (runs / "one/evaluation_unfinished_likelihood.npz").is_file()
    first = scored.copy()
    scored.clear()
    (resumed,) = evaluate(runs / "one", *words).values()
    assert torch.cat(first + scored).unique(dim=0).shape == (12, 1, 8, 8)
    assert [(f.name, f.value, f.error) for f in resumed] == [(f.name, f.value, f.error) for f in whole]
    assert not (runs / "one/evaluation_unfinished_likelihood.npz").exists()


def test_what_was_interrupted_at_the_end_of_a_loop_goes_on_behind_it(runs, monkeypatch):
    words = ("parts=[annealing]", "annealing.limit=4", "annealing.steps=3", "annealing.k=50", "annealing.simulated=2")
    (whole,) = evaluate(runs / "two", *words).values()
    module = sys.modules["vaelab.evaluation.annealing"]
    for name in ("bidirectional_bounds", "log_mean", "effective"):  # after one loop, after two, after all
        if name == "effective":
            monkeypatch.setattr(module, "mean_figure", _interrupted)
        else:
            monkeypatch.setattr(module, name, _interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(runs / "one", *words)
        monkeypatch.undo()
    monkeypatch.setattr(module, "annealed_weights", _interrupted)  # they are there
    (resumed,) = evaluate(runs / "one", *words).values()
    assert [(f.name, f.value, f.error) for f in resumed] == [(f.name, f.value, f.error) for f in whole]


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("change", ["checkpoint", "data", "again", "options", "part"])
def test_what_was_interrupted_with_other_settings_begins_anew(tmp_path, change):
    settings = {"checkpoint": "best.ckpt 7 7", "data": 1, "again": False, "options": {"k": 7}}
    unfinished = Unfinished(tmp_path, "likelihood", settings)
    unfinished["bound, k = 7"] = [torch.zeros(3), torch.ones(2)]
    unfinished.write()
    (kept,) = Unfinished(tmp_path, "likelihood", settings)["bound, k = 7"]
    assert kept.tolist() == [0, 0, 0, 1, 1]
    if change == "part":
        assert not Unfinished(tmp_path, "annealing", settings)
    else:
        assert not Unfinished(tmp_path, "likelihood", {**settings, change: "another"})
    unfinished.drop()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_of_unfinished_values_is_no_file(tmp_path):
    for content in (b"", b"PK\x03\x04", b"nothing"):
        (tmp_path / "evaluation_unfinished_likelihood.npz").write_bytes(content)
        assert not Unfinished(tmp_path, "likelihood", {})


def test_runs_of_which_a_part_was_refused_are_still_compared(runs, capsys):
    with pytest.raises(UserError, match="2 of 2 runs could not be evaluated"):
        evaluate([runs / "one", runs / "two"], "parts=[samples,likelihood]", "likelihood.k=20", "limit=15")
    assert "best first" in capsys.readouterr().out


def test_a_part_that_is_refused_does_not_stop_the_others(runs, capsys):
    with pytest.raises(UserError, match=r"^samples: .* need at least 20 images, but there are 15$"):
        evaluate(runs / "one", "parts=[samples,likelihood]", "likelihood.k=20", "limit=15")
    assert list(stored(runs / "one")) == ["likelihood"]
    assert "likelihood" in capsys.readouterr().out


def test_the_table_says_what_figures_share_once_and_fits_80_columns(tmp_path, capsys):
    common = {"split": "test", "binarize": "dynamic", "images": 10000}
    figures = [
        Figure("likelihood/elbo", -98.1234567, 0.7654, "nats", {**common, "draws": 10}),
        Figure("likelihood/bits_per_dim", 0.17, None, "bits", {**common, "k": 5000, "list": "[none]"}),
        Figure("likelihood/nothing", None, note="it does not apply"),
        Figure("likelihood/neither", None, note="it does not apply"),
    ]
    print_figures(figures, str(tmp_path))
    out = capsys.readouterr().out
    lines = out.splitlines()[1:]
    assert all(len(line) <= 80 for line in lines)
    assert out.count("binarize dynamic") == 1
    for words in (
        "-98.123",
        "± 0.77",
        "draws 10",
        "k 5000",
        "[none]",
        "nothing, neither: it does not apply",
    ):
        assert words in out


def test_many_kinds_by_the_same_scores_are_one_table(tmp_path, capsys):
    def figures(kind, value, **protocol):
        shared = {"split": "test", "k": 5, **protocol}
        return [
            Figure(f"anomaly/{kind}/{score}/{name}", value, 0.01, "", {**shared, "anomalies": kind.replace("_", " ")})
            for score in ("elbo", "reconstruction_error")
            for name in ("auroc", "average_precision")
        ]

    note = Figure("anomaly/bound", None, note="it does not apply")
    kinds = [*figures("class_1", 0.9), *figures("noise", 0.5), *figures("inverted", 1), *figures("masking", 1, few=3)]
    print_figures([note, *kinds], str(tmp_path))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == [
        "anomaly auroc in %",
        "anomaly average_precision in %",
    ]
    rows = [line.split() for line in lines]
    assert rows.count(["class_1", "90.0", "±", "1.0", "90.0", "±", "1.0"]) == 2
    assert rows.count(["masking", "100.0", "±", "1.0", "100.0", "±", "1.0"]) == 2
    assert lines.count("  masking: few 3") == 2
    assert "  bound: it does not apply" in lines
    assert len(lines) == 15
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("parts=[nonsense]", "parts must be some of .*likelihood.*, but there is nonsense"),
        ("parts=[]", r"in brackets, but is \[\]"),
        ("split=nonsense", "split must be one of train, val, test"),
        ("limit=1", "limit must be null or a whole number of at least 2"),
        ("limit=many", "limit must be"),
        ("likelihood.k=0", "likelihood.k must be a whole number of at least 1"),
        ("likelihood.k=few", "likelihood.k must be a whole number"),
        ("likelihood.nonsense=1", "nonsense"),
        ("device=cuda:99", "device=cuda:99 is not there"),
        ("device=null", "device must be auto, cpu"),
        ("parts=5", "parts must be some of .*, in brackets, but is 5"),
        ("parts=null", "but is None"),
        ("seed=abc", "seed must be a whole number from 0"),
        ("seed=null", "seed must be a whole number from 0"),
        ("again=maybe", "again must be true or false, but is 'maybe'"),
        ("data_root=/", "has no root"),
    ],
)
def test_mistakes_are_told_in_one_sentence(runs, override, words):
    with pytest.raises(UserError, match=words) as caught:
        evaluate(runs / "one", *QUICK, override)
    assert "\n" not in str(caught.value)
    assert not (runs / "one/evaluation.json").exists()


def test_overrides_are_strings_one_by_one(runs):
    with pytest.raises(UserError, match=r"one by one, such as 'limit=100', but there is \['parts=\[likelihood\]'\]"):
        evaluate(runs / "one", ["parts=[likelihood]"])


@pytest.mark.parametrize("run", [None, 5, [], [5]])
def test_runs_are_named_by_strings(run):
    with pytest.raises(UserError, match=r"run must be a run directory, a pattern of several, or a list|names no run"):
        evaluate(run, *QUICK)


def test_a_pattern_passes_over_what_is_no_run(runs):
    with pytest.raises(UserError, match="names no run directory"):
        evaluate(runs / "one" / "*", *QUICK)
    with pytest.raises(UserError, match="names no run directory"):
        evaluate(runs / "one" / "config.yaml", *QUICK)
    assert set(evaluate(runs / "one" / "checkpoints" / "*", *QUICK)) == {
        str(runs / "one/checkpoints" / name) for name in ("best.ckpt", "last.ckpt")
    }


def test_a_damaged_configuration_is_one_sentence(runs):
    for content in ("x: [", "[]", "x: 1"):
        (runs / "one/.hydra/config.yaml").write_text(content)
        with pytest.raises(UserError, match=r"is it damaged\?$") as caught:
            evaluate(runs / "one", *QUICK)
        assert "\n" not in str(caught.value)


def test_a_run_that_cannot_be_written_to_is_refused_before_anything_is_measured(runs, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"one cannot be written to, and evaluation.json belongs there"):
        evaluate(runs / "one", *QUICK)


def test_wrong_places_are_told(runs, tmp_path):
    with pytest.raises(UserError, match="names no run directory"):
        evaluate(tmp_path / "nowhere*", *QUICK)
    (runs / "two/.hydra/config.yaml").unlink()
    with pytest.raises(UserError, match="is no run directory"):
        evaluate(runs / "two", *QUICK)
    for content in ("{", "[]", '{"likelihood": {}}', '{"likelihood": [7]}', '{"likelihood": [{"figures": []}]}'):
        (runs / "one/evaluation.json").write_text(content)
        with pytest.raises(UserError, match="is damaged"):
            evaluate(runs / "one", *QUICK)


def test_a_machine_that_cannot_compile_is_told_before_anything_is_measured(runs, monkeypatch):
    def broken(*_):
        raise RuntimeError("No working C++ compiler found\nand more lines")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler .* No working C\+\+ compiler found; install"):
        evaluate(runs / "one", *QUICK, "compile=true")
    assert not (runs / "one" / "evaluation.json").exists()
