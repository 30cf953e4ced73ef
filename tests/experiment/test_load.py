from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from vaelab import load
from vaelab.errors import UserError
from vaelab.experiment import assemble as assembly


def test_the_loaded_model_is_the_trained_one(train):
    run = train("run", "trainer.max_epochs=2", "data.normalize=standard", "model.latent_dim=3")
    vae = load(run)
    assert not vae.training
    data = _data(run)
    x, _ = data.splits["test"].batch(slice(None))
    # The same noise as the test pass: the ELBO of the report, to the last digit.
    import json

    with torch.random.fork_rng():
        torch.manual_seed(0)
        elbo = vae.elbo(x, batch_size=1000).double().mean().item()
    assert elbo == pytest.approx(json.loads((run / "metrics.json").read_text())["test/elbo"], abs=1e-5)
    assert vae.encode(x[:5]).mean.shape == (5, 3)
    assert vae.decode(torch.zeros(4, 3)).shape == (4, 1, 8, 8)
    assert torch.equal(vae.reconstruct(x[:5]), vae.reconstruct(x[:5]))
    assert vae.sample(7).shape == (7, 1, 8, 8)
    assert float(vae.sample(7).min()) >= 0
    assert float(vae.sample(7).max()) <= 1


def test_a_run_directory_gives_the_best_weights_and_a_file_those_it_holds(train):
    run = train("run", "trainer.max_epochs=2")
    best, last = (torch.load(run / f"checkpoints/{n}.ckpt", weights_only=True) for n in ("best", "last"))
    key = "encoder.layers.1.weight"
    assert torch.equal(load(run).state_dict()[key], best["state_dict"][f"model.{key}"])
    assert torch.equal(load(run / "checkpoints/last.ckpt").state_dict()[key], last["state_dict"][f"model.{key}"])


def test_a_moved_run_loads(train, tmp_path):
    run = train("run", "trainer.max_epochs=1")
    moved = tmp_path / "elsewhere"
    run.rename(moved)
    assert load(moved).sample(2).shape == (2, 1, 8, 8)


def test_double_precision_weights_come_back_as_double(train):
    assert load(train("run", "trainer.max_epochs=1", "trainer.precision=64-true")).sample(1).dtype == torch.float64


def test_a_checkpoint_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harmed",)

    file = tmp_path / "evil.ckpt"
    with file.open("wb") as stream:
        pickle.dump({"vaelab": Evil()}, stream)
    with pytest.raises(UserError, match="could not be read as a checkpoint"):
        load(file)
    torch.save({"state_dict": {}, "vaelab": {"config": {"model": {"_target_": "shutil.rmtree", "path": "x"}}}}, file)
    with pytest.raises(UserError, match=r"asks to build shutil.rmtree; if you trust it"):
        load(file)
    for target in ("vaelab.cli.os.system", "vaelab.experiment.run", "vaelab.models.build.Callable", "vaelab.nothing.X"):
        torch.save({"state_dict": {}, "vaelab": {"config": {"model": {"_target_": target}}}}, file)
        with pytest.raises(UserError, match="asks to build"):
            load(file)
    assert not (tmp_path / "harmed").exists()


def test_what_cannot_be_loaded_is_named(tmp_path, train):
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is empty"):
        load(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="holds no checkpoint"):
        load(tmp_path)
    run = train("run", "trainer.max_epochs=1")
    file = run / "checkpoints/best.ckpt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="could not be read"):
        load(run)
    torch.save({"weights": 1}, file)
    with pytest.raises(UserError, match="not a checkpoint of vaelab"):
        load(run)


def _data(run: Path):
    from omegaconf import OmegaConf

    return assembly.load_data(OmegaConf.load(run / ".hydra/config.yaml"))
