"""Anomalies as seen by models whose scores are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_subjects import Oracle, by_name, shapes, subject
from torch import Tensor

from vaelab.data import Images
from vaelab.data.sources import Source
from vaelab.evaluation import Anomaly, Subject
from vaelab.evaluation.anomaly import shape_matched

KINDS = ("noise", "inverted", "gaussian", "masking", "salt_and_pepper")


class Given(Source):
    origin = "given images"

    def __init__(self, images: Images) -> None:
        self.images = images

    def load(self) -> tuple[Images, Images | None]:
        return self.images, None


def trained_on(case: Subject, *classes: int) -> Subject:
    """The same, but with training and validation images of some classes only."""

    def kept(images: Images) -> Images:
        return images.subset(torch.isin(images.y, torch.tensor(classes)).nonzero().squeeze(1))

    return replace(case, splits={name: i if name == "test" else kept(i) for name, i in case.splits.items()})


def is_diagonal(x: Tensor) -> Tensor:
    """1 for images of class 2, else 0: those without a bright row or column."""
    bright = (x[:, 0] > 0.5).sum(-1), (x[:, 0] > 0.5).sum(-2)
    return (torch.maximum(bright[0].amax(1), bright[1].amax(1)) < 8).float()


def test_a_model_that_finds_the_held_out_class_improbable_is_perfect_and_its_reverse_useless(tmp_path: Path) -> None:
    for sign, expected in ((-1.0, 1.0), (1.0, 0.0)):
        case = trained_on(subject(Oracle(log_px=lambda x, s=sign: s * 1000 * is_diagonal(x)), tmp_path), 0, 1)
        figures = by_name(Anomaly(k=3)(case))
        for score in ("reconstruction_probability", "elbo", "bound"):
            assert figures[f"anomaly/class_2/{score}/auroc"].value == expected
            assert figures[f"anomaly/classes/{score}/auroc"].value == expected
            precision = figures[f"anomaly/class_2/{score}/average_precision"].value
            assert figures[f"anomaly/classes/{score}/average_precision"].value == precision
        assert figures["anomaly/class_2/elbo/auroc"].protocol["anomalous"] == 30
        assert figures["anomaly/class_2/elbo/auroc"].protocol["normal"] == 60


def test_a_model_that_finds_everything_alike_has_one_half(tmp_path: Path) -> None:
    case = trained_on(subject(Oracle(log_px=lambda x: torch.zeros(len(x))), tmp_path), 0)
    figures = by_name(Anomaly(k=0)(case))
    for kind in (*KINDS, "class_1", "class_2", "classes"):
        for score in ("reconstruction_error", "reconstruction_probability", "elbo"):
            assert figures[f"anomaly/{kind}/{score}/auroc"].value == 0.5
    assert figures["anomaly/noise/elbo/average_precision"].value == pytest.approx(0.5)
    assert not any("/bound/" in name for name in figures)


def test_the_mean_over_classes_is_that_of_their_figures(tmp_path: Path) -> None:
    case = trained_on(subject(Oracle(log_px=lambda x: -x.sum((1, 2, 3))), tmp_path), 0)
    figures = by_name(Anomaly(k=0)(case))
    values = torch.tensor([figures[f"anomaly/class_{i}/elbo/auroc"].value for i in (1, 2)], dtype=torch.float64)
    assert figures["anomaly/classes/elbo/auroc"].value == pytest.approx(float(values.mean()))
    assert figures["anomaly/classes/elbo/auroc"].error == pytest.approx(float(values.std() / math.sqrt(2)))


def test_without_held_out_classes_there_are_corrupted_images_alone(tmp_path: Path) -> None:
    figures = by_name(Anomaly(k=0)(subject(Oracle(log_px=lambda x: -x.sum((1, 2, 3))), tmp_path)))
    assert {name.split("/")[1] for name in figures} == {*KINDS, "classes"}
    assert "all classes of this data were trained" in figures["anomaly/classes"].note
    assert figures["anomaly/inverted/elbo/auroc"].value == 1  # bright images are improbable here
    assert figures["anomaly/masking/elbo/auroc"].value < 0.2  # the well-known failure: simpler images are probable


def test_png_bits_correct_for_complexity(tmp_path: Path) -> None:
    """A model whose code is as long as a PNG file, and a bit longer for the held-out class, is right but for that."""
    from vaelab.metrics.compression import png_bits

    model = Oracle(log_px=lambda x: -math.log(2) * (png_bits(x, levels=256) + is_diagonal(x)))
    figures = by_name(Anomaly(k=0)(trained_on(subject(model, tmp_path), 0, 1)))
    assert figures["anomaly/class_2/complexity/auroc"].value == 1
    assert figures["anomaly/class_2/elbo/auroc"].value < 1


def test_anomalies_are_images_that_the_data_could_hold(tmp_path: Path) -> None:
    seen = []
    Anomaly(k=0)(subject(Oracle(clean=lambda x: seen.append(x) or x), tmp_path))
    x = torch.cat(seen) * 255
    assert (x - x.round()).abs().max() < 1e-3
    assert (x.min(), x.max()) == (0, 255)


def test_another_data_set_of_the_same_images_cannot_be_told_apart_and_black_ones_can(tmp_path: Path) -> None:
    case = subject(Oracle(log_px=lambda x: x.sum((1, 2, 3))), tmp_path)
    figure = by_name(Anomaly(k=0, other=Given(shapes(90, 7)))(case))["anomaly/other/elbo/auroc"]
    assert abs(figure.value - 0.5) < 3 * figure.error
    black = Images(x=torch.zeros(50, 1, 8, 8, dtype=torch.uint8), y=torch.zeros(50).long())
    assert by_name(Anomaly(k=0, other=Given(black))(case))["anomaly/other/elbo/auroc"].value == 1


def test_another_data_set_is_brought_to_the_same_shape() -> None:
    """Averages are kept: of brightness by the size, of colours by a grey model."""
    colours = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    images = Images(x=colours, y=torch.arange(4))
    same = shape_matched(images, (3, 12, 12), "")
    assert same is images
    grey = shape_matched(images, (1, 6, 6), "")
    assert grey.shape == (1, 6, 6)
    assert grey.support == "levels"
    wanted = torch.nn.functional.avg_pool2d(colours.float().mean(1, keepdim=True), 2).mean((1, 2, 3))
    torch.testing.assert_close(grey.x.float().mean((1, 2, 3)), wanted, atol=1.5, rtol=0)
    back = shape_matched(grey, (3, 24, 24), "")
    assert back.shape == (3, 24, 24)
    assert (back.x[:, 0] == back.x[:, 2]).all()
    torch.testing.assert_close(back.x.float().mean((1, 2, 3)), grey.x.float().mean((1, 2, 3)), atol=2.0, rtol=0)


def test_a_deterministic_code_has_no_bound_and_says_so(tmp_path: Path) -> None:
    figures = by_name(Anomaly()(subject(Oracle(kl=None), tmp_path)))
    for score in ("elbo", "bound", "complexity"):
        assert "deterministic code" in figures[f"anomaly/{score}"].note
    assert figures["anomaly/noise/reconstruction_error/auroc"].value == 0.5


def test_data_that_does_not_fit_and_too_few_images_are_refused(tmp_path: Path) -> None:
    case = subject(Oracle(), tmp_path)
    real = Images(x=3 * torch.rand(9, 1, 6, 6), y=torch.zeros(9).long(), scale=1)
    with pytest.raises(ValueError, match=r"other: given images has images of \(1, 6, 6\) with values outside"):
        Anomaly(k=0, other=Given(real))(case)
    with pytest.raises(ValueError, match="at least 2 images of known classes are needed, but there are 1"):
        Anomaly(images=1)(case)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
        Anomaly(k=-1)
