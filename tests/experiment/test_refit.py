"""A new prior for a finished run."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from small_models import small_vae

from vaelab import load
from vaelab.data import ImageDataModule
from vaelab.data.sources import Digits
from vaelab.errors import UserError
from vaelab.experiment.refit import keep_weights
from vaelab.models import build_m2
from vaelab.networks import LabelCondition
from vaelab.priors import FullGaussianPrior, GaussianMixturePrior

QUICK = ("logger=none", "trainer.max_epochs=3")


@pytest.fixture
def refit(train, tmp_path):
    def _refit(name, *overrides):
        return train(name, f"refit={tmp_path / 'run'}", *QUICK, *overrides, base=("callbacks=quiet",))

    return _refit


def test_only_the_prior_changes_and_samples_come_from_it(train, refit):
    run = train("run", "method=rae_l2", "model.latent_dim=4", *QUICK)
    new = refit("new", "model/prior=gaussian_mixture", "model.prior.components=3")
    one, two = load(run), load(new)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert type(two.prior).__name__ == "GaussianMixturePrior"
    assert not torch.allclose(one.sample(8, seed=0), two.sample(8, seed=0))
    metrics = json.loads((new / "metrics.json").read_text())
    before, after = (m["test/elbo"] for m in (json.loads((run / "metrics.json").read_text()), metrics))
    assert before == pytest.approx(after, abs=1e-3)
    codes = torch.randn(1000, 4)
    assert metrics["test/log_prior"] > one.prior().log_prob(5 * codes).mean()


def test_a_better_prior_raises_the_bound_of_a_variational_model(train, refit):
    run = train("run", "model.latent_dim=4", *QUICK)
    new = refit("new", "model/prior=flow", "model.prior.steps=2", "model.prior.hidden=[32]", "trainer.max_epochs=10")
    before, after = (json.loads((r / "metrics.json").read_text()) for r in (run, new))
    assert after["test/elbo"] > before["test/elbo"]
    assert after["test/reconstruction"] == pytest.approx(before["test/reconstruction"], abs=0.5)


def test_batch_statistics_stay_as_they_are(train, refit):
    run = train("run", "method=rae_l2", "model.encoder.norm=batch", "model.decoder.norm=batch", *QUICK)
    new = refit("new", "model/prior=gaussian")
    one, two = load(run).state_dict(), load(new).state_dict()
    names = [name for name in one if "running" in name or "num_batches" in name]
    assert names
    assert all(torch.equal(one[name], two[name]) for name in names)


def test_a_refit_that_is_resumed_equals_one_that_never_stopped(train, refit, resume):
    train("run", "method=rae_l2", "model.latent_dim=4", *QUICK)
    flow = ("model/prior=flow", "model.prior.hidden=[8]", "model.prior.steps=2")
    whole = refit("whole", *flow, "trainer.max_epochs=2")
    refit("half", *flow, "trainer.max_epochs=1")
    half = resume("half", "trainer.max_epochs=2")
    one, two = (load(r / "checkpoints/last.ckpt").state_dict() for r in (whole, half))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_makes_no_sense_is_said(train, refit, tmp_path):
    train("run", *QUICK)
    with pytest.raises(UserError, match="choose one, for example model/prior=gaussian_mixture"):
        refit("a")
    with pytest.raises(UserError, match=r"keeps the model and the data.*model.latent_dim=3 would change"):
        refit("b", "model/prior=flow", "model.latent_dim=3")
    with pytest.raises(UserError, match="nothing to fit"):
        refit("c", "model/prior=standard_normal")
    with pytest.raises(UserError, match="is no run directory"):
        train("d", f"refit={tmp_path / 'nowhere'}", "model/prior=flow", base=())


def test_the_prior_is_found_wherever_it_lies_in_a_model(tmp_path):
    data = ImageDataModule(source=Digits(), val_size=200, test_size=400, labels=100)
    data.setup()

    old, new = (
        small_vae(prior=prior, x_shape=(1, 8, 8), build=build_m2, condition=LabelCondition(num_classes=10))
        for prior in (FullGaussianPrior, partial(GaussianMixturePrior, components=2))
    )
    weights = {f"model.{name}": value for name, value in old.state_dict().items()}
    torch.save({"vaelab": {}, "state_dict": weights}, tmp_path / "best.ckpt")
    keep_weights(tmp_path / "best.ckpt", SimpleNamespace(model=new, data=data), OmegaConf.create())
    kept = {name: value for name, value in new.state_dict().items() if not name.startswith("vae.prior.")}
    assert len(kept) < len(new.state_dict())
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in kept.items())
