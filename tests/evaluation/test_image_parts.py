"""The parts about images, built from their YAML, on an untrained model of every kind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from image_subjects import by_name

from vaelab.cli import CONF
from vaelab.evaluation import Subject
from vaelab.experiment.assemble import load_data
from vaelab.experiment.evaluate import chosen
from vaelab.experiment.instantiate import build
from vaelab.models import Model

OPTIONS = (
    "samples.steps=3",
    "samples.subsets=2",
    "samples.k=3",
    "anomaly.k=2",
    "anomaly.draws=2",
    "reconstruction.draws=2",
    "denoising.tuning_images=2",
    "denoising.masking=0",
)
KINDS = {
    "vae": (),
    "cvae": (),
    "m2": ("data.labels=20",),
    "ladder_vae": (),
    "vq_vae": (),
    "pixel_vae": ("data.binarize=dynamic",),
    "ae": ("data.normalize=standard",),
}


@pytest.mark.parametrize("method", KINDS)
def test_every_kind_of_model_has_figures_or_says_why_not(method: str, tmp_path: Path) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=["data=digits", f"method={method}", *KINDS[method]])
        parts = chosen(
            compose("evaluate", overrides=["run=x", "parts=[samples,reconstruction,denoising,anomaly]", *OPTIONS])
        )
    data = load_data(cfg)
    model: Model = build(cfg.model, "model")
    subject = Subject(
        model=model.eval(),
        splits=data.splits,
        split="test",
        limit=12,
        support=data.support,
        protocol={"binarize": data.binarize},
        folder=tmp_path,
    )
    figures = by_name([figure for part in parts.values() for figure in part(subject)])
    for figure in figures.values():
        assert (figure.value is not None and math.isfinite(figure.value)) or figure.note
        assert figure.error is None or (math.isfinite(figure.error) and figure.error >= 0)
    for name in ("samples/fid", "reconstruction/psnr", "anomaly/noise/reconstruction_error/auroc"):
        assert figures[name].value is not None
