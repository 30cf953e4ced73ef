"""M1, M2 and M1+M2 as runs: what they report, what data=latents reads, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vaelab import load
from vaelab.callbacks import LatentProbe
from vaelab.callbacks.probe import _labelled
from vaelab.data import ImageDataModule, Images
from vaelab.data.sources import Digits
from vaelab.errors import UserError
from vaelab.experiment.latents import LatentDataModule
from vaelab.experiment.refit import keep_all_but_prior
from vaelab.likelihoods import BernoulliLikelihood
from vaelab.metrics import probe_accuracy
from vaelab.models import build_vae
from vaelab.networks import MLPDecoder, MLPEncoder
from vaelab.priors import GaussianMixturePrior
from vaelab.samplers import GaussianSampler

QUICK = ("logger=none", "trainer.max_epochs=1")


def digits(**options: object) -> ImageDataModule:
    data = ImageDataModule(source=Digits(), val_size=200, test_size=400, **options)
    data.setup()
    return data


def metrics(directory: Path) -> dict[str, float]:
    return json.loads((directory / "metrics.json").read_text())


def test_m1_probes_the_labelled_means_alone(train) -> None:
    run = train("m1", "method=m1", *QUICK)
    found, model, data = metrics(run), load(run), digits(labels=100)
    known = data.splits["train"].y >= 0
    assert known.sum() == 100
    means = {name: model.encode(images.batch(slice(None))[0]).mean for name, images in data.splits.items()}
    labelled = means["train"][known], data.splits["train"].y[known]
    for split in ("val", "test"):
        for name, classifier in (("probe", "logistic_regression"), ("probe_svm", "svm")):
            expected = probe_accuracy(labelled, (means[split], data.splits[split].y), classifier=classifier)
            assert found[f"{split}/{name}_accuracy"] == pytest.approx(expected, abs=0.01)


def test_m2_reports_its_accuracy_on_all_test_labels(train) -> None:
    run = train("m2", "method=m2", *QUICK)
    x, y = digits().splits["test"].batch(slice(None))
    accuracy = (load(run).classify(x).argmax(1) == y).float().mean().item()
    assert metrics(run)["test/accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_the_latents_of_a_run_are_its_posterior_means_with_its_splits_and_labels(train, tmp_path: Path) -> None:
    run = train("m1", "method=m1", "data.split_seed=3", *QUICK)
    data = LatentDataModule(run=str(run))
    data.setup()
    model, images = load(run), digits(split_seed=3)
    for name, split in images.splits.items():
        expected = model.encode(split.batch(slice(None))[0]).mean
        x, y = data.splits[name].batch(slice(None))
        torch.testing.assert_close(x, expected.view(-1, 50, 1, 1))
        assert torch.equal(y, split.y)
    assert (data.x_shape, data.support, data.num_classes) == ((50, 1, 1), "real", 10)
    few = LatentDataModule(run=str(run), labels=100)
    few.setup()
    assert torch.equal(few.splits["train"].y, digits(split_seed=3, labels=100).splits["train"].y)
    again = train("m1_m2", "method=m1_m2", "data=latents", f"data.run={run}", *QUICK, base=("callbacks=quiet",))
    assert 0 <= metrics(again)["test/accuracy"] <= 1


def test_draws_of_latents_are_repeatable_and_spread_as_the_posterior(train) -> None:
    run = train("vae", *QUICK)
    one, two = (LatentDataModule(run=str(run), draw=True) for _ in range(2))
    one.setup(), two.setup()
    assert torch.equal(one.splits["train"].x, two.splits["train"].x)
    q = load(run).encode(digits().splits["train"].batch(slice(None))[0])
    standardised = (one.splits["train"].x.flatten(1) - q.mean) / q.stddev
    assert standardised.std().item() == pytest.approx(1, abs=0.02)
    assert standardised.mean().item() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(
    ("run", "message"), [(None, r"data=latents needs data\.run=RUN_DIR"), ("nowhere", r"data\.run=nowhere is no run")]
)
def test_latents_need_a_finished_run(run: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatentDataModule(run=run)


def test_m2_resumes_exactly(train, resume, tmp_path: Path) -> None:
    options = ("method=m2", "logger=none", "data.batch_size=100", "model.latent_dim=4")
    whole, half = train("whole", *options, "trainer.max_epochs=2"), train("half", *options, "trainer.max_epochs=1")
    resume("half", "trainer.max_epochs=2")
    one, two = (torch.load(p / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for p in (whole, half))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_model_that_needs_labels_to_encode_is_not_probed(train) -> None:
    with pytest.raises(UserError, match=r"callbacks\.probe encodes images without their labels"):
        train("cvae", "method=m1", "model/condition=labels", "data.labels=null", *QUICK)


def test_the_probe_sees_all_classes_of_images_that_lie_class_by_class() -> None:
    y = torch.tensor([-1, 0, 1, 2]).repeat_interleave(50)
    images = Images(x=torch.zeros(200, 1, 1, 1), y=y)
    assert _labelled(images, 40).y.unique().tolist() == [0, 1, 2]
    assert len(_labelled(images, 40)) == 40
    assert torch.equal(_labelled(images, 150).y, y[50:])


def test_the_probe_leaves_every_part_in_the_mode_it_had() -> None:
    model = build_vae(
        x_shape=(1, 8, 8),
        latent_dim=2,
        encoder=partial(MLPEncoder, hidden=[4], norm="batch"),
        sampler=GaussianSampler,
        prior=GaussianMixturePrior,
        decoder=partial(MLPDecoder, hidden=[4]),
        likelihood=BernoulliLikelihood(),
    )
    keep_all_but_prior(model)  # a refit: everything else stays in evaluation mode
    module = torch.nn.Module()
    module.model = model
    before = [m.training for m in module.modules()]
    LatentProbe().on_fit_start(SimpleNamespace(datamodule=digits()), module)
    assert [m.training for m in module.modules()] == before
    assert True in before
    assert False in before
