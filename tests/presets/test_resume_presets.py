"""Every preset goes on bit for bit as if it had never stopped: weights, codebooks, discriminators, noise.

`pytest -m "slow or not slow" tests/presets/test_resume_presets.py` runs all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from presets import PRESETS, STARTS_FROM, arguments, composed

from vaelab.experiment import run

SHORT = ("callbacks=quiet", "logger=none", "trainer.limit_train_batches=5", "trainer.limit_val_batches=1")

# A schedule over the whole run is another one in a run half as long.
SAME_SCHEDULE = {"cyclical_vae": ("objective.schedule.epochs=2",)}


# What a run of theirs holds beside weights is of every kind that there is; all others are slow.
KINDS = (
    "vae",
    "aae",
    "cyclical_vae",
    "dae",
    "factor_vae",
    "geco",
    "hierarchical_vae",
    "iwae",
    "ladder_vae",
    "m1_m2",
    "m2",
    "rq_vae",
    "sigma_vae",
    "vae_gan",
    "vampprior",
    "vq_pixelcnn",
    "vq_vae",
)


def train(directory: Path, *words: str) -> Path:
    run(composed(*words), directory=directory, overrides=words)
    return directory


def same(a: object, b: object, path: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, pair in enumerate(zip(a, b, strict=True)):
            same(*pair, f"{path}/{i}")
    else:
        assert a == b, path


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in PRESETS]
)
def test_half_and_half_equals_the_whole(preset: str, tmp_path: Path) -> None:
    if preset in STARTS_FROM:
        start = STARTS_FROM[preset][0]
        train(tmp_path / start, *arguments(start, tmp_path), *SHORT, "trainer.max_epochs=1")
    words = (*arguments(preset, tmp_path), *SHORT, *SAME_SCHEDULE.get(preset, ()))
    whole = train(tmp_path / "whole", *words, "trainer.max_epochs=2")
    half = train(tmp_path / "half", *words, "trainer.max_epochs=1")
    train(half, f"resume={half}", "trainer.max_epochs=2")
    one, two = (torch.load(p / "checkpoints/last.ckpt", weights_only=True) for p in (whole, half))
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        same(one[key], two[key], key)
    for key in ("batches_seen", "rng"):
        same(one["vaelab"][key], two["vaelab"][key], key)
    assert one["vaelab"]["batches_seen"] == 10
