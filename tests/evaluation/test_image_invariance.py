"""What must not change what is measured of images: their order, the names of their classes, and mirrors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from image_subjects import Oracle, by_name, subject

from vaelab.evaluation import Anomaly, Denoising, Evaluation, Figure, Reconstruction, Subject
from vaelab.evaluation.denoising import median, total_variation
from vaelab.likelihoods import DiscretizedLogisticLikelihood, GaussianLikelihood

REVERSED, MIRRORED = (lambda x: x.flip(0)), (lambda x: x.flip(3))


def dimmed() -> Oracle:
    """A model that reconstructs images darker than they are, and finds bright ones improbable."""
    likelihood = DiscretizedLogisticLikelihood(levels=256)
    return Oracle(clean=lambda x: 0.8 * x, log_px=lambda x: -x.square().flatten(1).sum(1), likelihood=likelihood)


def changed(case: Subject, how) -> Subject:
    """The same with images of the test split that `how` has rearranged; their labels follow."""
    images = case.splits["test"]
    order = how(torch.arange(len(images)).view(-1, 1, 1, 1)).flatten()
    test = replace(images, x=how(images.x), y=images.y[order])
    return replace(case, splits={**case.splits, "test": test})


def measured(part: Evaluation, case: Subject, *left_out: str) -> dict[str, Figure]:
    torch.manual_seed(0)
    found = by_name(part(case))
    return {name: f for name, f in found.items() if f.value is not None and not name.startswith(left_out)}


def same(one: dict[str, Figure], other: dict[str, Figure]) -> None:
    assert list(one) == list(other)
    for name, figure in one.items():
        assert figure.value == pytest.approx(other[name].value, rel=1e-5, abs=1e-6), name
        if figure.error is not None:
            bootstrap = name.endswith("average_precision")  # whose resamples are others
            assert figure.error == pytest.approx(other[name].error, rel=0.5 if bootstrap else 1e-4, abs=1e-6), name


def test_the_order_of_the_images_changes_no_reconstruction_and_no_code_length(tmp_path: Path) -> None:
    case = subject(dimmed(), tmp_path)
    together = "compression/zlib_together"  # one stream, which remembers the images before
    one, other = (measured(Reconstruction(), some, together) for some in (case, changed(case, REVERSED)))
    assert {"reconstruction/ssim", "compression/rate", "compression/of_png", "compression/of_zlib"} <= set(one)
    same(one, other)


def test_mirrors_change_fidelity_rate_and_distortion_no_more_than_the_order(tmp_path: Path) -> None:
    case = subject(dimmed(), tmp_path)
    files = ("compression/png", "compression/zlib", "compression/of_png", "compression/of_zlib")  # read row by row
    one, other = (measured(Reconstruction(), some, *files) for some in (case, changed(case, MIRRORED)))
    assert {"reconstruction/psnr", "reconstruction/ssim", "compression/bits", "compression/of_raw"} <= set(one)
    same(one, other)


def test_the_order_of_the_images_changes_no_score_of_anomalies(tmp_path: Path) -> None:
    case = subject(dimmed(), tmp_path)
    known = {name: images.subset((images.y < 2).nonzero().flatten()) for name, images in case.splits.items()}
    case = replace(case, splits={**known, "test": case.splits["test"]})
    random = tuple(f"anomaly/{kind}" for kind in ("noise", "gaussian", "masking", "salt_and_pepper"))
    one, other = (measured(Anomaly(k=0), some, *random) for some in (case, changed(case, REVERSED)))
    assert {"anomaly/class_2/complexity/auroc", "anomaly/classes/elbo/average_precision"} <= set(one)
    same(one, other)


def test_other_names_of_the_classes_change_no_mean_over_them(tmp_path: Path) -> None:
    case = subject(dimmed(), tmp_path)
    splits = {name: replace(images, y=2 - images.y) for name, images in case.splits.items()}
    found = []
    for named, trained in ((case.splits, 0), (splits, 2)):
        known = {name: images.subset((images.y == trained).nonzero().flatten()) for name, images in named.items()}
        found.append(measured(Anomaly(k=0), replace(case, splits={**known, "test": named["test"]})))
    for score in ("elbo", "complexity"):
        for name in ("auroc", "average_precision"):
            one, other = (figures[f"anomaly/classes/{score}/{name}"] for figures in found)
            assert (one.value, one.error) == (pytest.approx(other.value), pytest.approx(other.error))


def test_filters_do_not_know_rows_from_columns_or_one_image_from_another() -> None:
    x = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    for turn in (lambda x: x.transpose(2, 3), REVERSED):
        assert torch.equal(median(turn(x), 3), turn(median(x, 3)))
        assert torch.allclose(total_variation(turn(x), 0.3), turn(total_variation(x, 0.3)), atol=1e-6)
    assert torch.equal(median(MIRRORED(x), 3), MIRRORED(median(x, 3)))


def test_gains_are_the_same_for_darker_images_in_a_smaller_range(tmp_path: Path) -> None:
    """PSNR and SSIM are relative to the range, so that units do not matter."""
    options = {"images": 20, "tuning_images": 5, "masking": 0, "salt_and_pepper": 0}
    found = []
    for unit in (1.0, 10.0):
        blurred = Oracle(clean=lambda x: (x + x.roll(1, 3)) / 2, likelihood=GaussianLikelihood())
        case = subject(blurred, tmp_path, support="real")
        splits = {name: replace(i, x=unit * i.batch(slice(None))[0]) for name, i in case.splits.items()}
        case = replace(case, splits=splits)
        found.append(measured(Denoising(gaussian=0.3 * unit, **options), case))
    same(*found)
