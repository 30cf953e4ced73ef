"""N epochs equal N/2 + resume + N/2 bit for bit, wherever the run was stopped."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import lightning as L
import pytest
import torch

from vaelab.errors import Stopped, UserError
from vaelab.experiment import assemble as assembly

VARIANTS = {
    "plain": (),
    "schedules_and_noise": (
        "data.binarize=dynamic",
        "objective/schedule=linear",
        "objective.schedule.epochs=3",
        "lr_schedule=cosine",
        "lr_schedule.epochs=6",
    ),
    "batchnorm_dropout": (
        "network=conv",
        "model.encoder.channels=[4]",
        "model.decoder.channels=[4]",
        "model.encoder.norm=batch",
        "model.encoder.dropout=0.2",
    ),
    "averaged_weights": ("weight_averaging=ema", "weight_averaging.decay=0.9"),
    "plateau_sgd": ("lr_schedule=plateau", "lr_schedule.patience=0", "optimizer=sgd", "optimizer.lr=1e-3"),
    "muon_cosine": ("optimizer=muon", "lr_schedule=cosine", "lr_schedule.epochs=6"),
    "optimal_sigma": ("model/likelihood=gaussian",),
    "accumulated_clipped": ("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1"),
}


def assert_same_state(a: Path, b: Path) -> None:
    one, two = (torch.load(p / "checkpoints/last.ckpt", weights_only=True) for p in (a, b))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_equal(one[key], two[key], key)
    for key in ("batches_seen", "rng", "plateau"):
        assert_equal(one["vaelab"][key], two["vaelab"][key], key)


def assert_equal(x: object, y: object, path: str) -> None:
    if isinstance(x, torch.Tensor):
        assert torch.equal(x, y), path
    elif isinstance(x, dict):
        assert x.keys() == y.keys(), path
        for key in x:
            assert_equal(x[key], y[key], f"{path}/{key}")
    elif isinstance(x, (list, tuple)):
        assert len(x) == len(y), path
        for i, pair in enumerate(zip(x, y, strict=True)):
            assert_equal(*pair, f"{path}/{i}")
    else:
        assert x == y, path


def figures(run: Path) -> dict[str, float]:
    metrics = json.loads((run / "metrics.json").read_text())
    return {k: v for k, v in metrics.items() if k != "seconds"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_and_half_equals_the_whole(train, resume, variant):
    options = ("data.batch_size=64", "logger=none", *VARIANTS[variant])
    whole = train("whole", *options, "trainer.max_epochs=4")
    train("half", *options, "trainer.max_epochs=2")
    half = resume("half", "trainer.max_epochs=4")
    assert_same_state(whole, half)
    assert figures(whole) == figures(half)


class SignalAt(L.Callback):
    """Sends this process a signal in the middle of training, as a user or a scheduler would."""

    def __init__(self, signum: int, batches: int) -> None:
        self.signum, self.batches = signum, batches

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.batches_seen == self.batches:
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize(
    ("signum", "batches", "code"),
    [(signal.SIGINT, 27, 130), (signal.SIGTERM, 20, 143), (signal.SIGTERM, 18, 143), (signal.SIGINT, 56, 130)],
    ids=["mid-epoch", "second batch of an epoch", "last batch of an epoch", "last batch of the run"],
)
def test_a_signal_saves_first_and_resuming_equals_never_having_stopped(
    train, resume, tmp_path, monkeypatch, signum, batches, code
):
    options = (
        "data.batch_size=64",
        "data.binarize=dynamic",
        "objective/schedule=linear",
        "weight_averaging=ema",
        "trainer.max_epochs=3",
    )
    whole = train("whole", *options)
    build = assembly.build_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(
            assembly, "build_callbacks", lambda *a, **k: [*build(*a, **k), SignalAt(signum, batches)], raising=True
        )
        before = signal.getsignal(signum)
        with pytest.raises(Stopped) as stopped:
            train("stopped", *options)
        assert signal.getsignal(signum) is before
    assert stopped.value.exit_code == code
    assert f"resume={tmp_path / 'stopped'}" in stopped.value.message
    resumed = resume("stopped")
    assert_same_state(whole, resumed)
    assert figures(whole) == figures(resumed)


def test_the_metrics_file_is_continued_not_replaced(train, resume):
    options = ("logger=csv", "data.batch_size=64")
    whole = train("whole", *options, "trainer.max_epochs=4")
    train("half", *options, "trainer.max_epochs=2")
    half = resume("half", "trainer.max_epochs=4")

    def rows(run: Path) -> list[tuple[str, str]]:
        with (run / "metrics.csv").open() as file:
            return [(row["step"], row["val/elbo"]) for row in csv.DictReader(file) if row["val/elbo"]]

    assert rows(half) == rows(whole)
    assert len(rows(whole)) == 4


def test_same_seed_same_weights_other_seed_other_weights(train):
    options = ("data.batch_size=64", "trainer.max_epochs=2", "logger=none")
    a, b, c = train("a", *options), train("b", *options), train("c", *options, "seed=1")
    assert_same_state(a, b)
    weights = [torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in (a, c)]
    assert not torch.equal(*(w["model.sampler.mean.1.weight"] for w in weights))


def test_drawing_pictures_and_logging_do_not_touch_the_training_noise(train):
    options = ("data.batch_size=64", "trainer.max_epochs=2", "model.latent_dim=2")
    quiet = train("quiet", *options, "logger=none", "trainer.check_val_every_n_epoch=2")
    drawn = train("drawn", *options, base=("data=digits",))
    one, two = (torch.load(r / "checkpoints/last.ckpt", weights_only=True) for r in (quiet, drawn))
    assert_equal(one["state_dict"], two["state_dict"], "state_dict")
    assert_equal(one["vaelab"]["rng"], two["vaelab"]["rng"], "rng")


def test_a_fresh_run_never_resumes_by_accident(train):
    first = train("run", "trainer.max_epochs=1")
    before = (first / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        train("run", "trainer.max_epochs=2")
    assert (first / "checkpoints/last.ckpt").read_bytes() == before


def test_resuming_refuses_what_would_make_it_another_run(train, resume):
    train("run", "trainer.max_epochs=1")
    for change in ("optimizer.lr=0.1", "model.latent_dim=3", "seed=5", "data.batch_size=8", "optimizer=sgd"):
        with pytest.raises(UserError, match="would change it"):
            resume("run", "trainer.max_epochs=2", change)
    with pytest.raises(UserError, match="has finished its 1 epochs"):
        resume("run")


def test_resuming_nothing_says_so(resume, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        resume("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        resume("empty")


def test_resuming_on_changed_data_is_refused(train, resume, tmp_path):
    x = torch.randint(0, 256, (60, 8, 8), dtype=torch.uint8)
    file = tmp_path / "x.pt"
    torch.save({"x": x}, file)
    train("run", f"data.path={file}", "trainer.max_epochs=1", base=("data=arrays", "callbacks=quiet"))
    torch.save({"x": torch.randint(0, 256, (60, 9, 8), dtype=torch.uint8)}, file)
    with pytest.raises(UserError, match="data has changed"):
        resume("run", "trainer.max_epochs=2")


def test_a_longer_run_follows_the_longer_schedule(train, resume):
    options = ("data.batch_size=64", "lr_schedule=cosine", "logger=none")
    train("run", *options, "trainer.max_epochs=2")
    run = resume("run", "trainer.max_epochs=4")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["last_epoch"] == 4 * 19
    before_last = 1e-3 * (1 + torch.tensor(torch.pi * (4 * 19) / (4 * 19)).cos().item()) / 2
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(before_last, abs=1e-9)
    two_epochs = torch.load(train("two", *options, "trainer.max_epochs=2") / "checkpoints/last.ckpt", weights_only=True)
    moved = {k: not torch.equal(v, two_epochs["state_dict"][k]) for k, v in state["state_dict"].items()}
    assert moved["model.decoder.layers.1.weight"]  # the rate did not stay at 0


def test_schedules_count_batches_also_where_gradients_are_accumulated(train):
    options = ("data.batch_size=64", "lr_schedule=cosine", "logger=none", "trainer.max_epochs=2")
    run = train("run", *options, "trainer.accumulate_grad_batches=4")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_an_extended_run_that_is_stopped_goes_on_as_it_was_extended(train, resume, monkeypatch):
    train("run", "trainer.max_epochs=1", "data.batch_size=64")
    build = assembly.build_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "build_callbacks", lambda *a, **k: [*build(*a, **k), SignalAt(signal.SIGINT, 25)])
        with pytest.raises(Stopped):
            resume("run", "trainer.max_epochs=3")
    assert figures(resume("run"))["epochs"] == 3


def test_a_moved_run_keeps_its_best_weights(train, resume, tmp_path):
    train("run", "trainer.max_epochs=3", "data.batch_size=16")
    (tmp_path / "run").rename(tmp_path / "moved")
    best = torch.load(tmp_path / "moved/checkpoints/best.ckpt", weights_only=True)
    (tmp_path / "moved/checkpoints/sentinel").touch()
    state = torch.load(tmp_path / "moved/checkpoints/last.ckpt", weights_only=True)
    for callback in state["callbacks"].values():
        if callback.get("monitor") == "val/elbo":
            callback["best_model_score"] = torch.tensor(0.0)  # better than any epoch to come
            callback["current_score"] = torch.tensor(0.0)
            callback["best_k_models"] = {k: torch.tensor(0.0) for k in callback["best_k_models"]}
            callback["kth_value"] = torch.tensor(0.0)
    torch.save(state, tmp_path / "moved/checkpoints/last.ckpt")
    resume("moved", "trainer.max_epochs=4")
    kept = torch.load(tmp_path / "moved/checkpoints/best.ckpt", weights_only=True)
    assert kept["epoch"] == best["epoch"]
