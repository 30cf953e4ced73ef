"""A mistake is answered with one sentence that names the entry, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

from vaelab.errors import Stopped, UserError

MISTAKES = {
    "model.latent_dim=0": "model.latent_dim must be a whole number of at least 1, but is 0",
    "model.latent_dim=-3": "model.latent_dim must be a whole number of at least 1, but is -3",
    "model.latent_dim=abc": "model.latent_dim must be a whole number, but is 'abc'",
    "model.latent_dim=2.5": "model.latent_dim must be a whole number, but is 2.5",
    "model.latent_dim=true": "model.latent_dim must be a whole number, but is True",
    "model.latent_dim=null": "model.latent_dim must be a whole number, but is None",
    "optimizer.lr=fast": "optimizer.lr must be a number, but is 'fast'",
    "optimizer.lr=-1": "Invalid learning rate: -1",
    "objective.beta=-1": "objective.beta must be a number of at least 0, but is -1",
    "objective.beta=0.5d": "objective.beta must be a number, but is '0.5d'",
    "objective.num_samples=0": "num_samples must be a whole number of at least 1",
    "model.encoder.hidden=[4,abc]": "hidden[1] must be a whole number of at least 1, but is 'abc'",
    "model.encoder.hidden=[]": "hidden needs at least one width",
    "model.encoder.hidden=7": "model.encoder.hidden must be a list",
    "model.encoder.activation=rleu": "did you mean 'relu'?",
    "model.encoder.dropout=1.5": "dropout must lie in [0, 1)",
    "model.sampler.parameterization=variance": "must be one of log_variance, log_std",
    "model.latent_map=true": "choose network=conv or network=resnet",
    "+model.latent_dmi=3": "there is no key 'model.latent_dmi'; did you mean 'model.latent_dim'?",
    "+optimizer.momentom=3": "there is no key 'optimizer.momentom'",
    "+data.bacth_size=3": "did you mean 'data.batch_size'?",
    "seed=x": "seed must be a whole number",
    "compile=maybe": "compile must be true or false",
    "data.batch_size=0": "data.batch_size must be a whole number of at least 1",
    "data.val_size=5000": "leaves a split empty",
    "data.binarize=sometimes": "data.binarize must be one of none, dynamic, static, threshold",
    "trainer.max_epochs=abc": "trainer.max_epochs must be a whole number or null, but is 'abc'",
    "~model.latent_dim": "model lacks latent_dim, which must be given",
    "trainer.devices=5000": "trainer.devices=5000 are more processes than this machine has cores",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be a whole number of at least 1",
    "trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch must be a whole number of at least 1",
    "trainer.devices=0": "trainer.accelerator=auto takes what this machine has",
    "trainer.accelerator=gpuu": "trainer.accelerator=cpu works everywhere",
    "trainer.precision=12": "trainer.precision must be one of",
    "trainer.strategy=foo": "invalid strategy name",
    "model.encoder._target_=vaelab.networks.Nope": "cannot be imported",
    "lr_schedule=cosine lr_schedule.warmup_epochs=99": "must be below epochs",
    "network=conv_pool model.encoder.channels=[2,2,2,2]": "too small for 4 stages",
    "network=conv model.latent_map=true model.decoder.channels=[4]": "same stages",
    "model=hierarchical network=conv": "network=conv would change nothing; leave it out",
    "model=hierarchical +model.encoder.hidden=[4]": "model.encoder must be null",
    "method=cvae data.labels=10": "labels must lie between 0 and 9 for this model, but reach from -1 to 9",
    "method=cvae model.condition.num_classes=5": "raise model.condition.num_classes",
    "model/prior=codes": "or model/sampler=vector_quantizer for this prior",
    "method=m2 objective=perceptual": "M2 does not give; choose objective=elbo, or a model that decodes single draws",
    "network=conv model.latent_map=true model.decoder.dense=[8]": "choose model.decoder.dense=[]",
    "method=rae_gp compile=true": "RAE takes derivatives by z here, which a compiled model does not give; choose",
    "objective=iwae objective.estimator=dreg compile=true": "choose compile=false",
    "objective=piwae compile=true": "choose compile=false",
    "optimizer=muon optimizer.lr=-1": "optimizer.lr must be",
    "optimizer=muon method=factor_vae": "which Muon does not take; choose optimizer=adam",
    "trainer.precision=bf16-mixed trainer.gradient_clip_val=1": "add optimizer.fused=false",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_one_sentence_that_names_the_entry_and_no_files(train, tmp_path, arguments):
    with pytest.raises(UserError) as error:
        train("run", *arguments.split())
    message = str(error.value)
    assert MISTAKES[arguments] in message
    assert "\n" not in message
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(train):
    with pytest.raises(UserError, match=r"trainer\.accelerator=cpu works everywhere"):
        train("run", "trainer.accelerator=gpu")


def test_normalised_pixels_are_no_bernoulli_targets(train, tmp_path):
    file = tmp_path / "x.pt"
    torch.save((torch.rand(50, 8, 8) - 0.1307) / 0.3081, file)
    base = ("data=arrays", f"data.path={file}", "callbacks=quiet", "trainer.max_epochs=1")
    with pytest.raises(UserError, match="this data is real") as error:
        train("bernoulli", base=base)
    assert "model/likelihood=gaussian" in str(error.value)
    with pytest.raises(UserError, match="lies outside"):
        train("binarized", "data.binarize=dynamic", base=base)
    assert (train("gaussian", "model/likelihood=gaussian", base=base) / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("options", "term"),
    [
        (("optimizer=sgd", "optimizer.lr=1e12"), "train/(reconstruction|kl) became (nan|inf)"),
        (
            ("model/likelihood=gaussian", "model.likelihood.scale=fixed", "optimizer=sgd", "optimizer.lr=1e30"),
            "train/(reconstruction|kl) became (nan|inf|-inf)",
        ),
    ],
)
def test_a_broken_loss_stops_the_run_with_step_term_and_checkpoint(train, tmp_path, options, term):
    with pytest.raises(Stopped, match=term) as stopped:
        train("run", "trainer.max_epochs=3", *options)
    assert stopped.value.exit_code == 1
    assert "at step 1 (epoch 1)" in stopped.value.message
    assert "no checkpoint" in stopped.value.message


def test_a_loss_that_breaks_later_leaves_the_last_good_checkpoint(train, resume, tmp_path, monkeypatch):
    from vaelab.training import VAEModule

    step = VAEModule.training_step

    def breaks(self, batch, batch_idx):
        if self.batches_seen == 100:
            with torch.no_grad():
                self.model.decoder.layers[1].weight.fill_(torch.nan)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VAEModule, "training_step", breaks)
    with pytest.raises(Stopped, match=r"at step 100 \(epoch 2\): train/reconstruction became nan") as stopped:
        train("run", "trainer.max_epochs=3")
    assert str(tmp_path / "run/checkpoints/last.ckpt") in stopped.value.message
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert state["vaelab"]["batches_seen"] == 75
    assert all(bool(torch.isfinite(v).all()) for v in state["state_dict"].values())
