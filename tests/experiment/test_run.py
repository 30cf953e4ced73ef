"""What a run leaves behind, and that its figures are what they claim."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaelab import load

BASE = ("data=digits",)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from hydra import compose, initialize_config_dir

    from vaelab.cli import CONF
    from vaelab.experiment import run as start

    directory = tmp_path_factory.mktemp("run")
    arguments = ["data=digits", "model.latent_dim=2", "trainer.max_epochs=3", "objective.beta=4", "data.batch_size=32"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=arguments)
    start(cfg, directory=directory, overrides=arguments)
    return directory


def test_metrics_are_flat_and_in_nats(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"epochs", "steps", "seconds", "parameters/encoder", "parameters/decoder"} <= metrics.keys()
    assert (metrics["epochs"], metrics["steps"]) == (3, 3 * 38)
    for split in ("train", "val", "test"):
        elbo, rec, kl, loss = (metrics[f"{split}/{n}"] for n in ("elbo", "reconstruction", "kl", "loss"))
        assert elbo < 0
        assert kl > 0
        assert elbo == pytest.approx(rec - kl, abs=1e-4)
        assert loss == pytest.approx(4 * kl - rec, abs=1e-4)  # the objective, beside the true bound


def test_every_file_that_the_readme_promises(run):
    for name in (
        "config.yaml",
        "overrides.yaml",
        "versions.json",
        "metrics.csv",
        ".hydra/config.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    ):
        assert (run / name).stat().st_size > 0
    versions = json.loads((run / "versions.json").read_text())
    assert versions["seed"] == 0
    assert versions["torch"] == torch.__version__.split("+")[0]
    assert "objective.beta=4" in (run / "overrides.yaml").read_text()
    assert not list(run.rglob("*.partial"))


def test_pictures_show_what_they_claim(run):
    vae = load(run)
    for name, columns, rows in (("samples", 4, 4), ("reconstructions", 8, 8), ("manifold", 20, 20)):
        picture = Image.open(run / f"{name}.png")
        assert picture.size == (columns * 58 + 2, rows * 58 + 2)
    assert Image.open(run / "latents.png").size[0] > 400
    cell = torch.tensor(list(Image.open(run / "samples.png").convert("L").crop((2, 2, 58, 58)).tobytes())).view(56, 56)
    first = vae.sample(16, seed=0)[0, 0]
    assert torch.allclose(cell[3::7, 3::7] / 255, first, atol=1 / 255)


def test_tensorboard_has_curves_pictures_and_hyperparameters(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    scalars, images = set(events.Tags()["scalars"]), set(events.Tags()["images"])
    for split in ("train", "val", "test"):
        assert {f"{split}/{name}" for name in ("loss", "elbo", "reconstruction", "kl")} <= scalars
    assert {"beta", "lr", "images_per_second", "kl_per_dimension/000", "kl_per_dimension/001"} <= scalars
    assert {"samples", "reconstructions", "manifold", "latents", "kl_per_dimension"} <= images
    assert [e.step for e in events.Scalars("val/elbo")] == [38, 76, 114]
    assert len(events.Images("samples")) == 3
    per_dimension = sum(events.Scalars(f"kl_per_dimension/00{i}")[-1].value for i in range(2))
    assert per_dimension == pytest.approx(events.Scalars("val/kl")[-1].value, rel=1e-4)
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    assert "best/test_elbo" in scalars


def test_csv_and_tensorboard_agree(run):
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/elbo"]]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [float(r["val/elbo"]) for r in rows] == pytest.approx([e.value for e in events.Scalars("val/elbo")])


def test_the_best_checkpoint_is_chosen_by_the_unannealed_elbo(train, monkeypatch):
    # With beta = 0 the loss rewards what the bound punishes: the loss falls at every epoch, the bound gets worse.
    run = train("run", "objective.beta=0", "trainer.max_epochs=6", "data.batch_size=16", "logger=csv")
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/elbo"]]
    elbos, losses = ([float(r[f"val/{name}"]) for r in rows] for name in ("elbo", "loss"))
    assert losses[-1] == min(losses)
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert best["epoch"] == elbos.index(max(elbos)) < 5
    assert json.loads((run / "metrics.json").read_text())["val/elbo"] == pytest.approx(max(elbos), abs=1e-5)


def test_a_last_batch_of_one_image_does_not_stop_batch_normalisation(train):
    batch = ("model.encoder.norm=batch", "model.decoder.norm=batch", "data.batch_size=92")  # 1,197 = 13 * 92 + 1
    run = train("run", *batch, "logger=none", "trainer.max_epochs=1")
    assert json.loads((run / "metrics.json").read_text())["steps"] == 13


def test_running_means_of_a_codebook_keep_their_precision(train):
    run = train("run", "method=vq_vae", "trainer.precision=bf16-true", "logger=none", "trainer.max_epochs=1")
    state = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert state["model.mean"].dtype == torch.bfloat16
    assert {v.dtype for name, v in state.items() if "codebooks" in name} == {torch.float32}
    model = load(run)
    assert model.dtype == torch.bfloat16
    assert model.sampler.codebooks[0].sums.dtype == torch.float32


def test_a_plain_autoencoder_says_that_it_has_no_bound(train, capsys):
    run = train("run", "model/sampler=deterministic", "trainer.max_epochs=1")
    assert "A deterministic code has no ELBO" in capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test/kl"] == 0


def test_optional_packages_are_named_when_missing(train, monkeypatch):
    import importlib.util

    from vaelab.errors import UserError

    for name in ("wandb", "mlflow"):
        if importlib.util.find_spec(name) is None:
            with pytest.raises(UserError, match=f"logger.{name} needs a package"):
                train(name, f"logger={name}", "trainer.max_epochs=1")


def test_bits_per_dimension_are_reported_where_the_likelihood_is_a_probability(train):
    import math

    binary = json.loads((train("binary", "data.binarize=static", "trainer.max_epochs=1") / "metrics.json").read_text())
    assert binary["test/bits_per_dim"] == pytest.approx(-binary["test/elbo"] / (64 * math.log(2)))
    grey = json.loads((train("grey", "trainer.max_epochs=1") / "metrics.json").read_text())
    assert "test/bits_per_dim" not in grey
    code = train("code", "method=ae", "data.binarize=static", "trainer.max_epochs=1")  # no bound, and so no code length
    assert "test/bits_per_dim" not in json.loads((code / "metrics.json").read_text())
    levels = train("levels", "model/likelihood=categorical", "trainer.max_epochs=2")
    figures = json.loads((levels / "metrics.json").read_text())
    assert figures["test/bits_per_dim"] < math.log2(17)  # better than a guess among the 17 grey levels
