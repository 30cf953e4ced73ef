"""Every YAML file composes, instantiates, and takes a training, a validation and a test step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from vaelab.cli import CONF
from vaelab.errors import UserError
from vaelab.experiment import run

# Entries that a group's option cannot do without, and options that need a package or a partner of their own.
NEEDS = {
    "model/condition=attributes": ("data=arrays", "data.path={root}/attributes.npz"),
    "model/prior=bernoulli": ("model/sampler=bernoulli",),
    "model/prior=codes": ("model/sampler=vector_quantizer",),
    "model/prior=categorical": ("model/sampler=categorical",),
    "model/prior=pixelcnn": ("network=conv", "model.latent_map=true"),
    "model/prior=uniform_sphere": ("model/sampler=von_mises_fisher",),
    "model/sampler=bernoulli": ("model/prior=bernoulli",),
    "model/sampler=categorical": ("model/prior=categorical",),
    "model/sampler=finite_scalar_quantizer": ("model/prior=codes",),
    "model/sampler=residual_quantizer": ("model/prior=codes",),
    "model/sampler=vector_quantizer": ("model/prior=codes",),
    "model/sampler=von_mises_fisher": ("model/prior=uniform_sphere",),
    "data=mnist": ("data.root={root}",),
    "data=fashion_mnist": ("data.root={root}",),
    "data=kmnist": ("data.root={root}",),
    "data=emnist": ("data.root={root}",),
    "data=arrays": ("data.path={root}/images.npz",),
    "data=latents": ("data.run={root}/run", "model/likelihood=gaussian"),
    "data=sprites": ("data.size=200",),
    "data=image_folder": ("data.path={root}/pictures", "data.image_size=8"),
    "model/encoder=resnet": ("model.encoder.channels=[4]",),
}
SMALL = ("data=digits", "callbacks=quiet", "trainer.fast_dev_run=true", "data.batch_size=8", "data.eval_batch_size=8")


def options() -> list[str]:
    found = []
    for file in sorted(CONF.rglob("*.yaml")):
        group, name = file.parent.relative_to(CONF).as_posix(), file.stem
        if group not in (".", "evaluation") and not name.startswith("_"):
            found.append(f"{group}={name}")
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny data sets in every format that a `data` option reads."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def idx(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = b"".join(n.to_bytes(4, "big") for n in array.shape)
        path.write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes())

    for name in ("MNIST", "FashionMNIST", "KMNIST", "EMNIST"):
        for part in ("train", "t10k" if name != "EMNIST" else "test"):
            n = 5040 if part == "train" else 40
            stem = f"emnist-balanced-{part}" if name == "EMNIST" else part
            idx(folder / name / "raw" / f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28)))
            idx(folder / name / "raw" / f"{stem}-labels-idx1-ubyte", rng.integers(0, 10, (n,)))
    np.savez(folder / "images.npz", x=rng.integers(0, 256, (40, 9, 7, 3), dtype=np.uint8), y=np.arange(40) % 4)
    attributes = rng.normal(size=(40, 3)).astype(np.float32)
    np.savez(folder / "attributes.npz", x=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), y=attributes)
    for i in range(20):
        path = folder / "pictures" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    arguments = ["data=digits", "callbacks=quiet", "logger=none", "trainer.max_epochs=1"]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        run(compose("train", overrides=arguments), directory=folder / "run", overrides=arguments)
    return folder


@pytest.mark.parametrize("option", options())
def test_every_option_trains(option: str, root: Path, tmp_path: Path) -> None:
    extra = tuple(e.format(root=root) for e in NEEDS.get(option, ()))
    arguments = [*SMALL, option, *extra]
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=arguments)
    group, name = option.split("=")
    if group == "logger" and name in ("wandb", "mlflow"):
        with pytest.MonkeyPatch.context() as patch:
            _without(patch, name)
            with pytest.raises(UserError, match="needs a package"):
                run(cfg, directory=tmp_path, overrides=arguments)
        return
    value = run(cfg, directory=tmp_path, overrides=arguments)
    assert np.isfinite(value)
    assert (tmp_path / "metrics.json").is_file()


def _without(patch: pytest.MonkeyPatch, name: str) -> None:
    from lightning.pytorch.loggers import mlflow, wandb

    patch.setattr(wandb, "_WANDB_AVAILABLE", False)
    patch.setattr(mlflow, "_MLFLOW_AVAILABLE", False)
    patch.setattr(mlflow, "_MLFLOW_SKINNY_AVAILABLE", False, raising=False)


@pytest.mark.parametrize("experiment", sorted(p.stem for p in (CONF / "experiment").glob("*.yaml")))
def test_the_head_of_an_experiment_is_the_command_that_runs_it(experiment: str) -> None:
    assert f"python train.py experiment={experiment}" in (CONF / "experiment" / f"{experiment}.yaml").read_text()


def test_published_parameter_counts() -> None:
    from vaelab.experiment.assemble import count
    from vaelab.experiment.instantiate import build

    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", overrides=["experiment=keras_conv"])
    cfg.derived.update(x_shape=[1, 28, 28], mean=[0.0], std=[1.0])
    model = build(cfg.model, "model")
    assert count(model.encoder) + count(model.sampler) == 69_076
    assert count(model.decoder) == 65_089
    assert torch.is_tensor(model.decode(torch.zeros(1, 2)))


def test_the_network_switches_both_halves_and_each_can_be_switched_alone() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        both = compose("train", overrides=["network=conv"])
        alone = compose("train", overrides=["network=conv", "model/decoder=mlp"])
        chosen = compose("train", overrides=["experiment=mlp_z2", "network=resnet"])
    assert (both.model.encoder._target_, both.model.decoder._target_) == (
        "vaelab.networks.ConvEncoder",
        "vaelab.networks.ConvDecoder",
    )
    assert (alone.model.encoder._target_, alone.model.decoder._target_) == (
        "vaelab.networks.ConvEncoder",
        "vaelab.networks.MLPDecoder",
    )
    assert chosen.model.encoder._target_ == "vaelab.networks.ResNetEncoder"
