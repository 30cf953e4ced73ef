"""Orthogonality: every pair of parts takes a training and a validation step, or is refused with one useful sentence.

`pytest -s tests/configs/test_pairs.py` prints the tables: `.` fits, `x` is refused.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from vaelab.cli import CONF
from vaelab.data import ImageDataModule, Images
from vaelab.data.sources import Source
from vaelab.errors import UserError
from vaelab.experiment.assemble import build_model_and_objective

SHAPES = {"8x8x1": (1, 8, 8), "28x28x1": (1, 28, 28), "32x32x3": (3, 32, 32)}
BATCH = 4
AXES = {
    "sampler": "model/sampler",
    "prior": "model/prior",
    "likelihood": "model/likelihood",
    "network": "network",
    "decoder": "model/decoder",
    "condition": "model/condition",
    "corruption": "model/corruption",
    "objective": "objective",
}
PAIRS = (
    ("sampler", "prior"),
    ("sampler", "likelihood"),
    ("sampler", "network"),
    ("prior", "likelihood"),
    ("prior", "network"),
    ("likelihood", "network"),
    ("objective", "sampler"),
    ("objective", "prior"),
    ("objective", "likelihood"),
    ("objective", "network"),
    ("condition", "network"),
    ("condition", "sampler"),
    ("condition", "prior"),
    ("condition", "objective"),
    ("corruption", "sampler"),
)
# Small sizes: what is tested is whether parts fit, not what they learn.
SMALL: dict[str, Any] = {
    "hidden": [8],
    "channels": [4, 4],
    "components": 3,
    "steps": 2,
    "num_samples": 2,
    "blocks": 1,
    "layers": 2,
    "num_codes": 6,
}
# Options that are two in one: further variants of an axis, and what they take.
VARIANTS = {
    "network": {"conv map": ("network=conv", "model.latent_map=true"), "pixelcnn": ("model/decoder=pixelcnn",)},
    "condition": {"labels film": ("model/condition=labels", "model.condition.how=film")},
    "sampler": {
        "relaxed categorical": ("model/sampler=categorical", "model.sampler.straight_through=false"),
    },
    "objective": {
        "elbo stl": ("objective=elbo", "objective.estimator=stl"),
        "iwae dreg": ("objective=iwae", "objective.estimator=dreg"),
        "free bits by group": ("objective=free_bits", "objective.per=group"),
        "dip ii": ("objective=dip_vae", "objective.variant=ii"),
        "rae gradient penalty": ("objective=rae", "objective.regularizer=gradient_penalty"),
    },
    "likelihood": {
        f"gaussian {scale}": ("model/likelihood=gaussian", f"model.likelihood.scale={scale}")
        for scale in ("fixed", "learned", "learned_per_pixel", "predicted")
    },
}
# What an option must be given to be what it is; it is no partner, but its own data.
NEEDS = {"objective=perceptual": ("objective.similarity=ssim",)}
# A partner that is tried when the defaults do not fit, where the sampler's own remedy does not name it.
PARTNERS = {
    "categorical": ("model/sampler=categorical",),
    "bernoulli": ("model/sampler=bernoulli",),
    "uniform_sphere": ("model/sampler=von_mises_fisher",),
    "codes": ("model/sampler=vector_quantizer",),
    "pixelcnn": ("model/sampler=vector_quantizer",),
}
LEFT_OUT = {"model/condition=attributes"}  # needs data that has some


class Noise(Source):
    """Grey images without content, of any shape."""

    origin = "noise"

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def load(self) -> tuple[Images, Images | None]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(0, 256, (40, *self.shape), dtype=torch.uint8, generator=generator)
        return Images(x=x, y=torch.arange(40) % 10), None


@cache
def data(shape: str) -> ImageDataModule:
    module = ImageDataModule(source=Noise(SHAPES[shape]), val_size=8, test_size=8, batch_size=BATCH)
    module.setup()
    return module


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=["data=digits", *overrides])
    if not any(override.startswith("method=") for override in overrides):
        cfg.model.latent_dim = 20  # every sampler can take it
        shrink(cfg)
    return cfg


@cache
def option_of(override: str) -> DictConfig:
    """Composes an option of a group alone, which is several times as fast as the whole configuration with it."""
    if override.startswith("network="):  # two options
        return composed(override)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose(override.replace("=", "/"))
    shrink(cfg)
    return cfg


def joined(overrides: tuple[str, ...]) -> DictConfig:
    """Composes options of different groups: as Hydra does, but from options composed once (40 times as fast)."""
    base = composed()
    model, objective = dict(base.model.items_ex(resolve=False)), base.objective
    values = []
    for override in overrides:
        key, value = override.split("=", 1)
        if "." in key:
            values.append((key, yaml.safe_load(value)))
        elif key == "network":
            model |= {part: option_of(override).model[part] for part in ("encoder", "decoder")}
        elif key == "objective":
            objective = option_of(override).objective
        else:
            part = key.split("/")[1]
            model[part] = option_of(override).model[part]
    kept = {key: base[key] for key in ("derived", "trainer", "monitor", "data", "refit")}
    cfg = OmegaConf.create({**kept, "objective": objective, "model": model})
    for key, value in values:
        OmegaConf.update(cfg, key, value, force_add=False)
    return cfg


def shrink(node: Any) -> None:
    if isinstance(node, DictConfig):
        for key in list(node):
            if OmegaConf.is_interpolation(node, key):
                continue
            if key in SMALL and node[key] is not None and type(node[key]) is not bool:
                small = OmegaConf.create({"v": SMALL[key]}).v
                if isinstance(node[key], int) == isinstance(small, int):
                    node[key] = small
            else:
                shrink(node[key])


@cache
def options(axis: str) -> dict[str, tuple[str, ...]]:
    group = AXES[axis]
    found = {}
    for file in sorted((CONF / group).glob("*.yaml")):
        option = f"{group}={file.stem}"
        if not file.stem.startswith("_") and option not in LEFT_OUT:
            found[file.stem] = (option, *NEEDS.get(option, ()))
    return {**found, **VARIANTS.get(axis, {})}


def step(shape: str, *overrides: str) -> None:
    """Builds the parts and takes a training and a validation step; raises what the user would see."""
    whole = any(o.startswith("method=") for o in overrides)
    cfg = composed(*overrides).copy() if whole else joined(overrides)
    images = data(shape)
    torch.manual_seed(0)
    with open_dict(cfg):
        cfg.derived.update(
            x_shape=list(images.x_shape),
            levels=images.levels,
            train_size=len(images.splits["train"]),
            num_classes=images.num_classes,
            num_attributes=0,
            mean=[0.0] * images.x_shape[0],
            std=[1.0] * images.x_shape[0],
            steps_per_epoch=6,
        )
    model, objective = build_model_and_objective(cfg, images)
    x, y = images.splits["train"].batch(slice(0, BATCH))
    loss, _ = objective(model(x, y, num_samples=objective.num_samples), 3)
    loss.backward()
    for name, parameter in (*model.named_parameters(), *objective.named_parameters()):
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"{name} gets a gradient that is not finite"
    model.eval(), objective.eval()
    with torch.no_grad():
        x, y = images.splits["val"].batch(slice(0, BATCH))
        loss, logs = objective(model(x, y, num_samples=objective.num_samples), 3)
    figures = [loss, *(value for value in logs.values() if isinstance(value, torch.Tensor))]
    assert all(figure.isfinite().all() for figure in figures), logs


def outcome(shape: str, *overrides: str) -> str:
    """Returns an empty text if the parts fit, the refusal if they do not; anything else fails the test."""
    try:
        step(shape, *overrides)
    except UserError as error:
        return str(error)
    return ""


def remedies(message: str) -> tuple[str, ...]:
    """Returns the overrides that a refusal names."""
    return tuple(re.findall(r"(?:model|objective|network|data)[\w/.]*=[\w.\[\],]+", message))


@cache
def partners(axis: str, name: str) -> tuple[str, ...]:
    """Returns an option of an axis with what it needs to run at all."""
    own = options(axis)[name]
    if axis == "prior" and name in PARTNERS:
        own = (*own, *PARTNERS[name])
    for _ in range(3):
        refused = outcome("8x8x1", *own)
        if not refused:
            return own
        own = (*own, *(r for r in remedies(refused) if r.split("=")[0] not in {o.split("=")[0] for o in own}))
    pytest.fail(f"{axis}={name} runs with nothing: {refused}")


def group_of(override: str) -> str:
    """Returns the group that an override belongs to: of model.prior.classes=3 and of model/prior=flow, model/prior."""
    key = override.split("=")[0]
    return "/".join(key.split(".")[:2]) if key.startswith("model.") else key.split(".")[0]


def together(axes: tuple[str, str], names: tuple[str, str]) -> tuple[str, ...]:
    """Joins two options with their partners; what either option is itself beats what the other one brings along."""
    own = [o for axis, name in zip(axes, names, strict=True) for o in options(axis)[name]]
    taken = {group_of(o) for o in own} | {AXES[axis] for axis in axes}
    for axis, name in zip(axes, names, strict=True):
        brought = [o for o in partners(axis, name) if o not in own and group_of(o) not in taken]
        own += brought
        taken |= {group_of(o) for o in brought}
    return tuple(sorted(own, key=lambda o: "." in o.split("=")[0]))


def walked() -> list[Any]:
    """All pairs of axes on all shapes; slow are 28x28x1, and on 32x32x3 those that no network takes part in."""
    cases = []
    for shape in SHAPES:
        for axes in PAIRS:
            matters = shape == "32x32x3" and "network" in axes and "objective" not in axes
            marks = () if shape == "8x8x1" or matters else (pytest.mark.slow,)
            cases.append(pytest.param(axes, shape, marks=marks, id=f"{' x '.join(axes)}-{shape}"))
    return cases


@pytest.mark.parametrize(("axes", "shape"), walked())
def test_every_pair_fits_or_is_refused_with_a_remedy(axes: tuple[str, str], shape: str) -> None:
    rows, columns = (options(axis) for axis in axes)
    refusals: dict[tuple[str, str], str] = {}
    failures = []
    for row in rows:
        for column in columns:
            overrides = together(axes, (row, column))
            try:
                refusals[row, column] = outcome(shape, *overrides)
            except Exception as error:  # every failure of a table is shown, not its first
                failures.append(f"{row} x {column} ({' '.join(overrides)}): {type(error).__name__}: {error}")
    width = max(map(len, rows))
    print(f"\n{axes[0]} x {axes[1]} on {shape}")
    for i, column in enumerate(columns):
        print(" " * (width + 1) + "| " * i + "," + "-" * (2 * (len(columns) - i)) + f" {column}")
    for row in rows:
        print(f"{row:<{width}} " + " ".join("x" if refusals.get((row, c), "") else "." for c in columns))
    for text in sorted({text for text in refusals.values() if text}):
        print(f"  x {text}")
    assert not failures, "\n".join(failures)
    for pair, text in refusals.items():
        if text:
            assert "\n" not in text, pair
            assert len(text) < 500, pair
            assert re.search(r"choose|use |needs|need |set |give |add |must be ", text), (
                f"{pair}: {text} names no remedy"
            )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", sorted(p.stem for p in (CONF / "method").glob("*.yaml")))
def test_every_preset_takes_a_step_on_every_shape(method: str, shape: str) -> None:
    assert not outcome(shape, f"method={method}")
