"""The latents' part of an evaluation: figures of models whose latents are known, and of those that have none."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaelab.cli import CONF
from vaelab.data import Images
from vaelab.evaluation import Disentanglement, Figure, Latents, Subject
from vaelab.evaluation.latents import REMEDY, labelled
from vaelab.experiment.assemble import build_model_and_objective, load_data
from vaelab.experiment.evaluate import chosen
from vaelab.models import Model

D = 3
ACTIVE = torch.tensor([1.0, 0.5, 0.0])  # how far the posterior means of the classes are apart, by dimension


class Known(nn.Module):
    """A posterior N(m(x), 0.5^2) whose means are read off the first pixels; the prior is N(0, I)."""

    def __init__(self, gains: Tensor) -> None:
        super().__init__()
        self.gains, self.latent_shape = gains, (len(gains),)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        mean = self.gains * x.flatten(1)[:, : len(self.gains)]
        return Independent(Normal(mean, torch.full_like(mean, 0.5)), 1)

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1):
        from vaelab.models.terms import Latent, Terms

        q = self.encode(x)
        p = Independent(Normal(torch.zeros(len(self.gains)), torch.ones(len(self.gains))), 1)
        return Terms(log_px=torch.zeros(num_samples, len(x)), latents=(Latent(q.sample((num_samples,)), q, p),))


def images(number: int, *, seed: int, classes: int = 2) -> Images:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (number,), generator=generator)
    x = 0.3 * torch.randn(number, 1, 2, 3, generator=generator)
    x[:, 0, 0, 0] += 4.0 * y
    return Images(x=x, y=y, scale=1)


def subject(model: Model | nn.Module, folder: Path, *, split: str = "test", **splits: Images) -> Subject:
    found = {"train": images(200, seed=1), "test": images(300, seed=2), **splits}
    return Subject(model=model, splits=found, split=split, limit=None, support="real", protocol={}, folder=folder)  # type: ignore[arg-type]


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name.removeprefix("latents/"): figure for figure in figures}


def from_preset(*overrides: str) -> tuple[Model, dict[str, Images]]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=["data=digits", *overrides])
    data = load_data(cfg)
    cfg.derived.steps_per_epoch = 10
    torch.manual_seed(0)
    model, _ = build_model_and_objective(cfg, data)
    return model.eval(), dict(data.splits)


def test_figures_of_known_latents(tmp_path: Path) -> None:
    torch.manual_seed(0)
    part = subject(Known(ACTIVE), tmp_path)
    found = by_name(Latents(mixture=300)(part))
    means = Known(ACTIVE).encode(part.splits["test"].x).mean
    kl = 0.5 * (means.square() + 0.25 - 1 - math.log(0.25))
    assert found["kl"].value == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    assert found["kl"].error == pytest.approx(kl.sum(1).std().item() / math.sqrt(300), rel=1e-5)
    assert found["active_units"].value == 2
    assert not found["active_units"].note
    parts = [found[name].value for name in ("mutual_information", "total_correlation", "dimension_wise_kl")]
    assert sum(parts) == pytest.approx(kl.sum(1).mean().item(), abs=4 * found["kl"].error + 0.2)  # type: ignore[arg-type]
    assert found["mutual_information"].value > math.log(2) - 0.1  # type: ignore[operator]  # of the two classes
    assert found["marginal_kl"].value == pytest.approx(parts[1] + parts[2])
    assert all("images" in figure.protocol for figure in found.values())
    rows = list(csv.DictReader((tmp_path / "latents.csv").open()))
    assert [float(row["kl"]) for row in rows] == pytest.approx(kl.mean(0).tolist(), rel=1e-4)
    assert [row["active"] for row in rows] == ["1", "1", "0"]
    assert (tmp_path / "latents_kl.png").stat().st_size > 1000


def test_classifiers_read_what_is_there_and_guess_where_nothing_is(tmp_path: Path) -> None:
    perfect = by_name(Latents()(subject(Known(ACTIVE), tmp_path)))
    useless = by_name(Latents()(subject(Known(torch.tensor([0.0, 1.0])), tmp_path)))
    for kind in ("knn", "linear_probe"):
        assert perfect[kind].value == perfect[f"{kind}_pca"].value == perfect[f"{kind}_pixels"].value == 1
        assert perfect[f"{kind}_pixels"].protocol["dimensions"] == 6
        assert perfect[f"{kind}_pca"].protocol["dimensions"] == 3
        accuracy, error = useless[kind].value, useless[kind].error
        assert accuracy is not None
        assert error == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 300))
        assert abs(accuracy - 0.5) < 4 * error
        assert useless[f"{kind}_pca"].value == 1  # one of its two components is the class


def test_collapse_is_told_with_remedies_that_are_there(tmp_path: Path) -> None:
    found = by_name(Latents()(subject(Known(torch.zeros(4)), tmp_path)))
    assert found["active_units"].value == 0
    assert "posterior collapse: 0 of 4 units" in found["active_units"].note
    assert found["mutual_information"].value == pytest.approx(0, abs=1e-6)
    for words in (
        "objective=free_bits objective.free_nats=0.5",
        "objective/schedule=linear objective.schedule.epochs=50",
        "model/decoder=mlp model.decoder.hidden=[100]",
    ):
        assert words in REMEDY
        model, _ = from_preset(*words.split())
        assert isinstance(model, nn.Module)


def test_a_saturated_mutual_information_says_so(tmp_path: Path) -> None:
    found = by_name(Latents(mixture=20)(subject(Known(torch.full((3,), 1e4)), tmp_path)))
    assert found["mutual_information"].value == pytest.approx(math.log(20))
    assert "cannot exceed log 20 = 3.00 nats" in found["mutual_information"].note


@pytest.mark.parametrize(
    ("splits", "why"),
    [
        ({"test": images(50, seed=3, classes=1)}, "one class"),
        ({"train": images(50, seed=3, classes=1)}, "one class"),
        ({"train": images(6, seed=3)}, "too few"),
        ({"train": Images(x=torch.rand(9, 1, 2, 3), y=torch.rand(9, 2), scale=1)}, "attributes"),
    ],
)
def test_without_classes_there_are_no_accuracies(splits: dict[str, Images], why: str, tmp_path: Path) -> None:
    found = by_name(Latents()(subject(Known(ACTIVE), tmp_path, **splits)))
    for name in ("knn", "knn_pca", "knn_pixels", "linear_probe", "linear_probe_pca", "linear_probe_pixels"):
        assert found[name].value is None
        assert why in found[name].note
    assert found["kl"].value is not None


def test_classifiers_are_not_tested_on_what_they_are_trained_on(tmp_path: Path) -> None:
    found = by_name(Latents()(subject(Known(ACTIVE), tmp_path, split="train")))
    assert found["knn"].value is None
    assert "split=test" in found["knn"].note


def test_images_whose_label_is_not_told_train_no_classifier() -> None:
    some = images(100, seed=4)
    hidden = Images(x=some.x, y=torch.where(torch.arange(100) < 30, some.y, -1), scale=1)
    chosen = labelled(hidden, 20, seed=0)
    assert len(chosen) == 20
    assert bool((chosen.y >= 0).all())
    assert len(labelled(hidden, 1000, seed=0)) == 30


@pytest.mark.parametrize(
    ("method", "absent", "present"),
    [
        ("ae", {"kl", "mutual_information"}, {"active_units", "knn"}),
        ("vq_vae", {"active_units", "total_correlation"}, {"kl", "mutual_information", "knn"}),
        ("cvae", {"knn", "linear_probe_pixels"}, {"kl", "mutual_information", "active_units"}),
        ("m2", {"mutual_information"}, {"kl", "kl/group_1", "kl/group_2", "active_units/group_1", "knn"}),
        ("vampprior", {"dimension_wise_kl"}, {"kl", "total_correlation", "marginal_kl"}),
        ("iaf_vae", {"total_correlation"}, {"kl", "mutual_information"}),
        ("ladder_vae", set(), {"kl/group_1", "active_units/group_5", "mutual_information", "knn"}),
        ("iwae_two_layers", {"mutual_information"}, {"kl/group_2", "active_units/group_1"}),
        ("hierarchical_vae", set(), {"kl/group_3", "active_units/group_3", "mutual_information"}),
    ],
)
def test_every_kind_of_model_has_its_figures_or_says_why_not(
    method: str, absent: set[str], present: set[str], tmp_path: Path
) -> None:
    model, splits = from_preset(f"method={method}")
    part = Subject(model, splits, "test", 40, "levels", {}, tmp_path)
    found = by_name(Latents(mixture=20, train_images=100)(part))
    for name in absent:
        assert found[name].value is None
        assert found[name].note
    for name in present:
        value = found[name].value
        assert value is not None
        assert math.isfinite(value)


def test_kl_of_groups_adds_up(tmp_path: Path) -> None:
    model, splits = from_preset("method=ladder_vae")
    found = by_name(Latents(mixture=20, train_images=100)(Subject(model, splits, "test", 40, "levels", {}, tmp_path)))
    groups = [figure.value for name, figure in found.items() if name.startswith("kl/")]
    assert len(groups) == 5
    assert sum(groups) == pytest.approx(found["kl"].value)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"images": 1}, {"mixture": 0}, {"threshold": -1.0}, {"train_images": 2.5}])
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Latents(**wrong)


def test_the_command_line_builds_both_parts() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("evaluate", overrides=["run=x", "parts=[latents,disentanglement]", "latents.mixture=7"])
    parts = chosen(cfg)
    assert isinstance(parts["latents"], Latents)
    assert parts["latents"].mixture == 7
    assert isinstance(parts["disentanglement"], Disentanglement)
