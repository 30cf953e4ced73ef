"""conf/data: what every choice builds, and where it looks for its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from vaelab.cli import CONF
from vaelab.data import ImageDataModule
from vaelab.experiment.instantiate import build

DOWNLOADED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "emnist": "EMNIST"}


def built(name: str, *overrides: str) -> ImageDataModule:
    """Builds data=name with the overrides, as a run does, but from conf/data alone."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose(f"data/{name}", overrides=["+seed=7", *overrides])
    return build(cfg.data, "data")


@pytest.mark.parametrize("name", DOWNLOADED)
def test_data_root_comes_from_the_command_line_then_the_environment_then_here(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAELAB_DATA", raising=False)
    assert built(name).source.raw == Path("data") / DOWNLOADED[name] / "raw"
    monkeypatch.setenv("VAELAB_DATA", "/environment")
    assert built(name).source.raw == Path("/environment") / DOWNLOADED[name] / "raw"
    assert built(name, "data.root=/line").source.raw == Path("/line") / DOWNLOADED[name] / "raw"


@pytest.mark.parametrize("name", DOWNLOADED)
def test_without_files_and_without_a_download_every_downloaded_set_says_so(name: str, tmp_path: Path) -> None:
    data = built(name, f"data.root={tmp_path}", "data.download=false")
    with pytest.raises(ValueError, match=rf"{DOWNLOADED[name]} is not in .*data.root=DIR.*data=digits"):
        data.setup()


def test_mnist_is_split_as_usual_and_normalised_as_usual(mnist_root: Path) -> None:
    data = built("mnist", f"data.root={mnist_root}", "data.normalize=standard")
    data.setup()
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [55_000, 5_000, 10_000]
    assert data.moments == ([0.1307], [0.3081])
    assert built("mnist", f"data.root={mnist_root}").normalize == "none"


def test_digits_need_nothing() -> None:
    data = built("digits")
    data.setup()
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [1197, 200, 400]


def test_arrays_and_image_folder_read_what_data_path_names(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).random((50, 6, 4, 2)))
    data = built("arrays", f"data.path={tmp_path / 'mine.npy'}")
    data.setup()
    assert (data.x_shape, data.support) == ((2, 6, 4), "unit")
    assert [len(data.splits[name]) for name in ("train", "val", "test")] == [36, 4, 10]
    for i in range(10):
        Image.new("RGB", (9, 9), (i, i, i)).save(tmp_path / f"{i}.png")
    data = built("image_folder", f"data.path={tmp_path}", "data.image_size=[6,4]", "data.val_size=2")
    data.setup()
    assert (data.x_shape, data.support, data.levels) == ((3, 6, 4), "levels", 256)
    assert built("image_folder", f"data.path={tmp_path}", "data.channels=1").source.mode == "L"


@pytest.mark.parametrize("name", ["arrays", "image_folder"])
def test_your_own_data_needs_a_path(name: str) -> None:
    with pytest.raises(ValueError, match=rf"data={name} needs data\.path="):
        built(name)


def test_the_seed_of_a_run_orders_its_batches_but_splits_nothing() -> None:
    data = built("digits")
    assert (data.seed, data.split_seed) == (7, 0)
