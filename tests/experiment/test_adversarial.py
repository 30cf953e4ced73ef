"""Runs with a discriminator: they learn, resume exactly, count batches and run on several devices."""

from __future__ import annotations

import json
import math

import pytest
import torch
from test_ddp import command
from test_resume import assert_same_state, figures

from vaelab import load
from vaelab.errors import UserError

METHODS = ("factor_vae", "aae", "vae_gan")
SMALL = (
    "data.batch_size=64",
    "logger=none",
    "network=mlp",
    "model.encoder.hidden=[32]",
    "model.decoder.hidden=[32]",
)
FEW = {"vae_gan": ("objective.discriminator.channels=[4,4]",)}


@pytest.mark.parametrize("method", METHODS)
def test_half_and_half_equals_the_whole(train, resume, method):
    options = (f"method={method}", *SMALL, *FEW.get(method, ()), "trainer.gradient_clip_val=1", "lr_schedule=cosine")
    options = (*options, "lr_schedule.epochs=4", "weight_averaging=ema", "weight_averaging.decay=0.9")
    whole = train("whole", *options, "trainer.max_epochs=2")
    train("half", *options, "trainer.max_epochs=1")
    half = resume("half", "trainer.max_epochs=2")
    assert_same_state(whole, half)
    assert figures(whole) == figures(half)
    (state,) = torch.load(whole / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
    model, discriminator = state["param_groups"]
    factor = (1 + math.cos(math.pi / 2)) / 2  # half of the four epochs of the schedule
    assert model["lr"] == pytest.approx(1e-3 * factor)
    assert discriminator["lr"] == pytest.approx(discriminator["initial_lr"] * factor)
    assert discriminator["initial_lr"] < 1e-3
    assert tuple(discriminator["betas"]) == (0.5, 0.9)
    assert set(state["state"]) == {*model["params"], *discriminator["params"]}  # both have moved


def test_max_steps_counts_batches(train):
    run = train("run", "method=aae", *SMALL, "trainer.max_steps=7")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == state["vaelab"]["batches_seen"] == 7


def test_gradients_accumulate_for_both_players(train):
    run = train("run", "method=aae", *SMALL, "trainer.max_epochs=1", "trainer.accumulate_grad_batches=4")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert (state["global_step"], state["vaelab"]["batches_seen"]) == (5, 19)
    assert {s["step"].item() for s in state["optimizer_states"][0]["state"].values()} == {5}


@pytest.mark.parametrize(
    ("method", "figure", "least", "options"),
    [
        ("factor_vae", "elbo", -26.5, ()),
        ("aae", "elbo", 0.0, ()),
        ("vae_gan", "reconstruction", -24.0, ("network=mlp",)),
    ],
)
def test_every_preset_learns(train, method, figure, least, options):
    run = train("run", f"method={method}", "logger=none", "trainer.max_epochs=4", *options)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics[f"val/{figure}"] > least  # what a model that ignores x cannot reach


@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_takes_images_of_other_sizes(train, tmp_path, method, shape):
    torch.save({"x": torch.randint(0, 256, (40, *shape), dtype=torch.uint8)}, tmp_path / "x.pt")
    base = ("data=arrays", f"data.path={tmp_path / 'x.pt'}", "callbacks=quiet", "logger=none")
    run = train("run", f"method={method}", "data.batch_size=7", "trainer.max_epochs=1", base=base)
    metrics = json.loads((run / "metrics.json").read_text())
    figures = ("elbo", "reconstruction", "discriminator_loss", "discriminator_accuracy")
    assert all(math.isfinite(metrics[f"{split}/{name}"]) for split in ("train", "val", "test") for name in figures)
    images = load(run).sample(2, seed=0)
    assert images.shape == (2, *(shape[2:] or (1,)), *shape[:2])
    assert images.isfinite().all()


def test_two_processes_train_both_players(tmp_path):
    options = ("data=digits", "logger=none", "callbacks=quiet", "method=vae_gan", *SMALL, *FEW["vae_gan"])
    options = (*options, "data.batch_size=32", "trainer.max_epochs=1", "trainer.devices=2", "trainer.accelerator=cpu")
    command(tmp_path / "run", *options)
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 19
    assert math.isfinite(json.loads((tmp_path / "run/metrics.json").read_text())["test/discriminator_loss"])


def test_options_that_do_not_suit_the_optimizer_are_refused_in_one_sentence(train):
    with pytest.raises(UserError, match=r"objective.discriminator_optimizer must hold options .*'betas'"):
        train("run", "method=aae", "optimizer=sgd")
    with pytest.raises(UserError, match="Invalid learning rate: -1"):
        train("run", "method=aae", "objective.discriminator_optimizer.lr=-1.0")
