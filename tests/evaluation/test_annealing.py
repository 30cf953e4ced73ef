"""Annealing as a part of an evaluation."""

from functools import partial

import pytest
import torch
from small_models import small_vae

from vaelab.data import Images
from vaelab.evaluation import Annealing, Subject
from vaelab.models import build_m2
from vaelab.networks import LabelCondition
from vaelab.priors import GaussianMixturePrior, StandardNormalPrior, UniformSpherePrior
from vaelab.samplers import (
    DeterministicSampler,
    GaussianSampler,
    LaplaceSampler,
    PlanarFlowSampler,
    VonMisesFisherSampler,
)

SMALL = {"limit": 6, "chains": 4, "steps": 5, "leapfrogs": 2, "simulated": 6, "k": 50, "rows": 8}
NAMES = ["annealing/log_px", "annealing/effective_chains", "annealing/gain", "annealing/gap"]


def subject(model, tmp_path, *, limit=None):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (40, 1, 4, 4), generator=generator, dtype=torch.uint8)
    images = Images(x=x, y=torch.arange(40) % 4, scale=1)
    return Subject(
        model=model, splits={"test": images}, split="test", limit=limit, support="binary", protocol={}, folder=tmp_path
    )


@pytest.mark.parametrize(
    ("sampler", "prior"),
    [
        (GaussianSampler, StandardNormalPrior),
        (GaussianSampler, partial(GaussianMixturePrior, components=2)),
        (LaplaceSampler, StandardNormalPrior),
        (partial(PlanarFlowSampler, steps=1), StandardNormalPrior),
    ],
)
@pytest.mark.parametrize("start", ["posterior", "prior"])
def test_both_starts_find_what_importance_sampling_finds_in_an_easy_model(sampler, prior, start, tmp_path):
    annealing = Annealing(**{**SMALL, "limit": 20, "k": 2000, "chains": 30, "steps": 50, "rows": 600}, start=start)
    log_px, effective, gain, gap = annealing(subject(small_vae(sampler, prior), tmp_path))
    assert [figure.name for figure in (log_px, effective, gain, gap)] == NAMES
    assert log_px.error > 0
    assert abs(gain.value) < 5 * gain.error + 0.02
    assert abs(gap.value) < 5 * gap.error + 0.02
    assert 10 < effective.value <= 30


def test_labels_go_with_their_images(tmp_path):
    conditional = small_vae(condition=LabelCondition(num_classes=4))
    *_, gain, gap = Annealing(**{**SMALL, "limit": 20, "k": 2000, "chains": 30})(subject(conditional, tmp_path))
    assert abs(gain.value) < 5 * gain.error + 0.02
    assert abs(gap.value) < 5 * gap.error + 0.02


def test_the_protocol_says_how_much_was_spent_on_how_many_images(tmp_path):
    figures = Annealing(**SMALL)(subject(small_vae(), tmp_path, limit=4))
    for figure in figures:
        assert figure.protocol["images"] == 4
        assert {"chains": 4, "steps": 5}.items() <= figure.protocol.items()
    assert figures[2].protocol["k"] == 50
    assert figures[3].protocol["simulated"] is True


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            partial(small_vae, build=build_m2, condition=LabelCondition(num_classes=4)),
            "one group of continuous latents",
        ),
        (partial(small_vae, VonMisesFisherSampler, UniformSpherePrior), "lie on the unit sphere"),
        (partial(small_vae, DeterministicSampler), "choose annealing.start=prior"),
    ],
)
def test_models_without_a_path_get_a_reason(make, why, tmp_path):
    figures = Annealing(**SMALL)(subject(make(), tmp_path))
    assert [figure.name for figure in figures] == NAMES
    assert all(figure.value is None and why in figure.note for figure in figures)


def test_the_decoder_of_an_autoencoder_is_judged_from_the_prior(tmp_path):
    log_px, _, gain, _ = Annealing(**SMALL, start="prior")(subject(small_vae(DeterministicSampler), tmp_path))
    assert log_px.value < 0
    assert gain.value is None
    assert "no density" in gain.note


@pytest.mark.parametrize("name", ["limit", "chains", "steps", "leapfrogs", "simulated", "k", "rows"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        Annealing(**{name: 0})


def test_other_refusals():
    with pytest.raises(ValueError, match="limit must be at least 2 images"):
        Annealing(limit=1)
    with pytest.raises(ValueError, match="start must be one of posterior, prior"):
        Annealing(start="nowhere")
