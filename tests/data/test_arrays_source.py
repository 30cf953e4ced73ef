"""The user's own arrays."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vaelab.data.sources import Arrays

GREY = np.random.default_rng(0).integers(0, 256, (12, 5, 7), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)
LABELS = np.arange(12) % 4


def save(path: Path, **arrays: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, arrays["x"])
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}, path)
    return path


def refused(path: Path, *words: str) -> None:
    """Loading is refused in one sentence that names the file and holds all `words`."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        Arrays(path=str(path)).load()
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize("x", [GREY, COLOUR, COLOUR[..., :1], COLOUR[..., :2]], ids=["NHW", "NHWC", "NHW1", "NHW2"])
def test_images_and_labels_arrive_as_they_were_saved(tmp_path: Path, suffix: str, x: np.ndarray) -> None:
    train, test = Arrays(path=str(save(tmp_path / f"mine{suffix}", x=x, y=LABELS))).load()
    assert test is None
    np.testing.assert_array_equal(train.x.numpy(), np.moveaxis(x.reshape(12, 5, 7, -1), -1, 1))
    assert train.y.tolist() == LABELS.tolist()
    assert (train.support, train.levels, train.num_classes) == ("levels", 256, 4)
    assert train.x.is_contiguous()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_labels_are_optional(tmp_path: Path, suffix: str) -> None:
    train, _ = Arrays(path=str(save(tmp_path / f"mine{suffix}", x=GREY))).load()
    np.testing.assert_array_equal(train.x[:, 0].numpy(), GREY)
    assert train.y.tolist() == [0] * 12
    assert train.y.dtype == torch.int64


def test_a_bare_tensor_and_other_names_will_do(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(GREY), tmp_path / "tensor.pt")
    np.savez(tmp_path / "unnamed.npz", GREY)
    np.savez(tmp_path / "words.npz", images=GREY, labels=LABELS, names=np.array(["a", "b"]))
    for name in ("tensor.pt", "unnamed.npz", "words.npz"):
        train, _ = Arrays(path=str(tmp_path / name)).load()
        np.testing.assert_array_equal(train.x[:, 0].numpy(), GREY)
    assert train.y.tolist() == LABELS.tolist()


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_an_official_test_set_is_kept_apart(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"mine{suffix}", x_train=GREY[:8], y_train=LABELS[:8], x_test=GREY[8:], y_test=LABELS[8:])
    train, test = Arrays(path=str(path)).load()
    np.testing.assert_array_equal(train.x[:, 0].numpy(), GREY[:8])
    np.testing.assert_array_equal(test.x[:, 0].numpy(), GREY[8:])
    assert (train.y.tolist(), test.y.tolist()) == (LABELS[:8].tolist(), LABELS[8:].tolist())


@pytest.mark.parametrize(
    ("x", "support"),
    [
        (GREY / 255, "unit"),
        ((GREY / 255).astype(np.float16), "unit"),
        (GREY.astype(np.float32), "real"),
        ((GREY > 99).astype(np.float64), "binary"),
        (GREY > 99, "binary"),
        ((GREY / 255).astype(">f4"), "unit"),
    ],
    ids=["float64", "float16", "beyond", "zeros-and-ones", "bool", "big-endian"],
)
def test_other_types_keep_their_values(tmp_path: Path, x: np.ndarray, support: str) -> None:
    train, _ = Arrays(path=str(save(tmp_path / "mine.npy", x=x))).load()
    assert train.support == support
    np.testing.assert_array_equal(train.batch(slice(None))[0][:, 0].numpy(), x.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint32, np.int32, bool])
def test_labels_may_be_any_whole_numbers(tmp_path: Path, dtype: type) -> None:
    labels = (np.arange(12) % 2).astype(dtype)
    train, _ = Arrays(path=str(save(tmp_path / "mine.npz", x=GREY, y=labels))).load()
    assert train.y.tolist() == labels.astype(int).tolist()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": GREY.astype(np.int32)}, ["must be uint8 (0 to 255), bool or floating point", "torch.int32", "astype"]),
        ({"x": GREY.astype(np.uint16)}, ["torch.uint16", "astype"]),
        ({"x": GREY.astype(np.complex64)}, ["torch.complex64", "astype"]),
        ({"x": GREY % 2}, ["grey levels from 0 to 255, but the largest is 1", "as bool"]),
        ({"x": np.where(GREY > 250, np.nan, GREY / 255)}, ["NaN or infinite", "remove"]),
        ({"x": np.where(GREY > 250, np.inf, GREY / 255)}, ["NaN or infinite", "remove"]),
        ({"x": np.array([["a", "b"]])}, ["not numbers"]),
        ({"x": GREY[:0]}, ["holds no images", "0x5x7"]),
        ({"x": GREY[:, :0]}, ["holds no images", "12x0x7"]),
        ({"x": GREY[0]}, ["N x H x W or N x H x W x C, but are 5x7"]),
        ({"x": COLOUR[None]}, ["N x H x W or N x H x W x C, but are 1x12x5x7x3"]),
        ({"x": np.moveaxis(COLOUR, -1, 1)}, ["12x3x5x7 looks like N x C x H x W", "moveaxis"]),
        ({"x": GREY[:, None]}, ["12x1x5x7 looks like N x C x H x W", "moveaxis"]),
        ({"x": np.ones((4, 2, 30, 40), dtype=np.float32)}, ["4x2x30x40 looks like N x C x H x W", "moveaxis"]),
        ({"x": GREY, "y": LABELS[:-1]}, ["12 images but 11 labels"]),
        ({"x": GREY, "y": LABELS - 1}, ["count from 0, but the smallest is -1"]),
        ({"x": GREY, "y": LABELS / 2}, ["whole numbers of shape (12,)", "float64"]),
        ({"x": GREY, "y": np.eye(12, dtype=np.int64)}, ["whole numbers of shape (12,)", "(12, 12)"]),
        ({"x": GREY, "y": np.array(["cat"] * 12)}, ["not numbers"]),
        ({"pictures": GREY, "y": LABELS}, ["holds pictures, y, but not x_test and x_train", "name the arrays x"]),
        ({"x_train": GREY, "y_train": LABELS}, ["but not x_test and y_test"]),
        ({"x_train": GREY}, ["but not x_test"]),
        ({"x_test": GREY}, ["but not x_train"]),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY}, ["but not y_test"]),
        ({"x_train": GREY, "x_test": GREY.astype(np.int64)}, ["(test)", "int64"]),
        ({}, ["holds nothing"]),
    ],
)
def test_arrays_that_make_no_data_set_are_refused_with_a_remedy(tmp_path: Path, arrays: dict, words: list[str]) -> None:
    refused(save(tmp_path / "mine.npz", **arrays), *words)


def test_channels_last_is_taken_at_its_word_whatever_their_number(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 9, 9, 20))
    train, _ = Arrays(path=str(save(tmp_path / "mine.npy", x=x))).load()
    assert train.shape == (20, 9, 9)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
@pytest.mark.parametrize("keep", [0, 3, 60, 0.5, 0.97])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    path = save(tmp_path / f"mine{suffix}", x=GREY, y=LABELS)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep if keep >= 1 else keep * len(raw))])
    refused(path, "could not be read", "numpy.save")


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_a_file_with_flipped_bytes_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, x=GREY)
    else:
        torch.save(torch.from_numpy(GREY), path)
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 3 if suffix == ".npz" else raw.index(GREY.tobytes())
    raw[middle : middle + 8] = bytes(8)
    path.write_bytes(raw)
    refused(path, "could not be read")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["mine.npy", "mine.npz", "mine.pt", "pickle.npy", "pickle.npz", "pickle.pt"])
def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path, name: str) -> None:
    bomb, path = Bomb(tmp_path / "exploded"), tmp_path / name
    if name.startswith("pickle"):
        path.write_bytes(pickle.dumps(bomb))
    elif path.suffix == ".pt":
        torch.save({"x": bomb}, path)
    else:
        with path.open("wb") as file:
            (np.save if path.suffix == ".npy" else np.savez)(file, np.array([bomb, None], dtype=object))
    refused(path, "could not be read")
    assert not bomb.path.exists()


@pytest.mark.parametrize(("wrong", "right"), [(".npz", ".npy"), (".npy", ".npz")])
def test_numpy_files_under_each_other_s_name_are_read(tmp_path: Path, wrong: str, right: str) -> None:
    path = save(tmp_path / f"mine{right}", x=GREY).rename(tmp_path / f"mine{wrong}")
    train, _ = Arrays(path=str(path)).load()
    np.testing.assert_array_equal(train.x[:, 0].numpy(), GREY)


@pytest.mark.parametrize("content", [[1, 2], "text", {"x": [[1.0]]}, {"x": {"a": torch.ones(2)}}, (torch.ones(2), 3)])
def test_a_pt_file_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mine.pt")
    refused(tmp_path / "mine.pt", "must hold a tensor", "torch.save")


def test_a_tensor_with_a_gradient_is_data_like_any_other(tmp_path: Path) -> None:
    torch.save(torch.nn.Parameter(torch.rand(4, 3, 3)), tmp_path / "mine.pt")
    train, _ = Arrays(path=str(tmp_path / "mine.pt")).load()
    assert not train.x.requires_grad


def test_a_missing_file_an_unknown_suffix_and_no_path_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.npy", "does not exist", "data.path")
    (tmp_path / "mine.csv").write_text("1,2")
    refused(tmp_path / "mine.csv", "not a .npy, .npz or .pt file", "data.path")
    with pytest.raises(ValueError, match=r"data=arrays needs data\.path=FILE"):
        Arrays(path=None)
