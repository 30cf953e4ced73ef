"""A new run that starts from the weights of another one."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from vaelab import load
from vaelab.errors import UserError

QUICK = ("logger=none", "trainer.max_epochs=2")


@pytest.fixture
def init(train, tmp_path):
    def _init(name, *overrides):
        return train(name, f"init_from={tmp_path / 'run'}", "callbacks=quiet", *overrides, base=())

    return _init


def weights(run, name="best"):
    return load(run / f"checkpoints/{name}.ckpt").state_dict()


def test_it_starts_at_the_best_weights_and_keeps_the_configuration_but_for_what_is_typed(train, init):
    run = train("run", "model.latent_dim=3", "model.encoder.hidden=[20]", "data.binarize=threshold", *QUICK)
    new = init("new", "objective=iwae", "objective.num_samples=7", "optimizer.lr=1e-30", "data.batch_size=50")
    for name, value in weights(run).items():
        assert torch.allclose(value, weights(new)[name], atol=1e-12), name
    before, after = (OmegaConf.load(r / "config.yaml") for r in (run, new))
    assert before.model == after.model
    assert after.data == {**before.data, "batch_size": 50}
    assert (after.objective.num_samples, after.monitor) == (7, "val/iwae")
    assert (after.trainer.max_epochs, after.optimizer.lr, after.init_from) == (2, 1e-30, str(run))


def test_training_goes_on_from_there(train, init):
    run = train("run", "logger=none", "trainer.max_epochs=5")
    new = init("new", "trainer.max_epochs=1", "seed=3")
    before, after = (json.loads((r / "metrics.json").read_text()) for r in (run, new))
    assert after["val/elbo"] > before["val/elbo"] - 0.5
    assert after["epochs"] == 1


def test_what_the_configuration_says_is_not_loaded(train, init):
    run = train(
        "run", "model/likelihood=gaussian", "model.likelihood.scale=fixed", "model.likelihood.sigma=0.1", *QUICK
    )
    typed = ("model/likelihood=gaussian", "model.likelihood.scale=fixed", "model.likelihood.sigma=0.5")
    new = init("new", *typed, "data.normalize=standard", "data.only_classes=[1,2]", "optimizer.lr=1e-30")
    old, found = weights(run), weights(new)
    assert (old["likelihood.fixed_scale"], found["likelihood.fixed_scale"]) == (pytest.approx(0.1), pytest.approx(0.5))
    assert old["std"] == 1
    assert found["std"] == pytest.approx(OmegaConf.load(new / "config.yaml").derived.std[0])
    torch.testing.assert_close(old["encoder.layers.1.weight"], found["encoder.layers.1.weight"])


def test_an_objective_that_learns_goes_on_unless_it_is_changed(train, init, capsys):
    run = train("run", "method=factor_vae", "objective.discriminator.hidden=[8]", *QUICK)
    discriminators = []
    for name, typed in (("same", ()), ("other", ("objective=factor_vae", "objective.discriminator.hidden=[8]"))):
        new = init(name, *typed, "trainer.max_epochs=1", "trainer.limit_train_batches=1")
        stored = (torch.load(r / "checkpoints/best.ckpt", weights_only=True)["state_dict"] for r in (run, new))
        discriminators.append(list(stored))
        assert ("afresh: objective" in capsys.readouterr().out) == bool(typed)
    old, same = discriminators[0]
    assert all(torch.allclose(old[k], same[k], atol=1e-3) for k in old if k.startswith("objective.discriminator"))
    old, other = discriminators[1]
    assert not all(torch.allclose(old[k], other[k], atol=1e-3) for k in old if k.startswith("objective.discriminator"))


def test_a_part_of_a_model_within_a_model_starts_afresh(train, init, capsys):
    train("run", "method=m2", "model.latent_dim=3", *QUICK)
    init("new", "model/prior=flow", "model.prior.steps=2")
    assert "afresh: prior" in capsys.readouterr().out


def test_an_entry_can_be_left_out(train, init):
    train("run", *QUICK)
    with pytest.raises(ConfigAttributeError, match="Missing key callbacks"):  # a sentence on the command line
        init("new", "~callbacks")


def test_a_part_that_is_replaced_starts_afresh_and_it_is_said(train, init, capsys):
    run = train("run", "model.latent_dim=4", *QUICK)
    new = init("new", "model/prior=flow", "model.prior.steps=2", "optimizer.lr=1e-30")
    assert "afresh: prior" in capsys.readouterr().out
    assert type(load(new).prior).__name__ == "FlowPrior"
    old = weights(run)
    assert all(torch.allclose(value, weights(new)[name], atol=1e-12) for name, value in old.items())


def test_a_schedule_within_the_objective_is_laid_where_it_belongs(train, init):
    train("run", *QUICK)
    new = init("new", "objective/schedule=linear", "objective.schedule.epochs=1")
    assert OmegaConf.load(new / "config.yaml").objective.schedule._target_.endswith("Linear")


@pytest.mark.slow
def test_it_resumes_like_any_run(train, init, resume):
    train("run", *QUICK)
    whole = init("whole", "trainer.max_epochs=4")
    init("half", "trainer.max_epochs=2")
    half = resume("half", "trainer.max_epochs=4")
    one, two = (weights(r, "last") for r in (whole, half))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_after_a_refit_everything_is_trained_again(train, init, tmp_path):
    train("first", "model.latent_dim=4", *QUICK)
    train("run", f"refit={tmp_path / 'first'}", "model/prior=gaussian_mixture", *QUICK, "callbacks=quiet", base=())
    new = init("new")
    config = OmegaConf.load(new / "config.yaml")
    assert config.objective._target_.endswith("ELBO")
    assert (config.refit, config.monitor) == (None, "val/elbo")
    before, after = weights(tmp_path / "run"), weights(new)
    assert not torch.equal(before["encoder.layers.1.weight"], after["encoder.layers.1.weight"])


def test_what_does_not_fit_is_said(train, init, tmp_path):
    run = train("run", *QUICK)
    with pytest.raises(
        UserError, match=r"weights of .* do not fit this model: decoder.layers.1.weight is \d+x\d+ there"
    ):
        init("a", "model.latent_dim=3")
    with pytest.raises(UserError, match=r"leave out model\.latent_dim=3"):
        init("a", "model.latent_dim=3")
    with pytest.raises(UserError, match="method=iwae would choose another one; change single entries"):
        init("b", "method=iwae")
    with pytest.raises(UserError, match="is no run directory"):
        train("c", f"init_from={tmp_path / 'nowhere'}", base=())
    with pytest.raises(UserError, match="init_from=5 is no run directory"):
        train("c", "init_from=5", base=())
    with pytest.raises(UserError, match="choose one of them"):
        init("d", f"refit={run}", "model/prior=flow")
