"""A directory tree of pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaelab.data.sources import ImageFolder

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def picture(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)


def refused(path: Path, *words: str, **options: object) -> None:
    """Loading is refused in one sentence that holds all `words`."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as refusal:
        ImageFolder(path=str(path), **options).load()
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_pictures_are_labelled_by_their_top_folder_in_alphabetical_order(tmp_path: Path) -> None:
    picture(tmp_path / "cats" / "old" / "b.jpg", WHITE)
    picture(tmp_path / "cats" / "a.png", RED)
    picture(tmp_path / "dogs" / "c.PNG", GREEN)
    (tmp_path / "dogs" / "notes.txt").write_text("no picture")
    train, test = ImageFolder(path=str(tmp_path), image_size=8).load()
    assert test is None
    assert train.shape == (3, 8, 8)
    assert train.y.tolist() == [0, 0, 1]
    assert (train.support, train.levels) == ("levels", 256)
    np.testing.assert_array_equal(train.x[:, :, 3, 3].numpy(), [RED, WHITE, GREEN])


def test_pictures_without_sub_folders_have_no_classes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    train, _ = ImageFolder(path=str(tmp_path), image_size=4).load()
    assert train.y.tolist() == [0, 0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_kind_of_picture_becomes_grey_or_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), WHITE, mode=mode)
    train, _ = ImageFolder(path=str(tmp_path), image_size=2, channels=channels).load()
    assert train.x.tolist() == [[[[255, 255], [255, 255]]] * channels]


def test_size_is_height_by_width_and_the_picture_stands_upright(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(values).save(tmp_path / "a.png")
    train, _ = ImageFolder(path=str(tmp_path), image_size=[3, 4], channels=1).load()
    np.testing.assert_array_equal(train.x[0, 0].numpy(), values)


def test_a_picture_made_smaller_is_averaged_not_sampled(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    train, _ = ImageFolder(path=str(tmp_path), image_size=4, channels=1).load()
    assert train.x.float().sub(127.5).abs().max() < 3


def test_train_and_test_are_the_official_sets_with_common_classes(tmp_path: Path) -> None:
    for part, name, colour in (("train", "a", RED), ("train", "b", GREEN), ("test", "b", WHITE), ("val", "c", WHITE)):
        picture(tmp_path / part / name / "x.png", colour)
    train, test = ImageFolder(path=str(tmp_path), image_size=2).load()
    assert train.y.tolist() == [0, 1]
    assert test.y.tolist() == [1]
    assert test.x[0, :, 0, 0].tolist() == list(WHITE)


def test_hidden_files_and_folders_are_left_out_and_links_followed(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    picture(tree / "a" / "x.png")
    picture(elsewhere / "y.png")
    (tree / "b").symlink_to(elsewhere, target_is_directory=True)
    (tree / "a" / "._x.png").write_bytes(b"no picture")
    picture(tree / ".thumbnails" / "x.png")
    train, _ = ImageFolder(path=str(tree), image_size=2).load()
    assert train.y.tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("content", ["truncated", "text", "empty", "header"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_corrupt_picture_is_refused_by_name(tmp_path: Path, suffix: str, content: str) -> None:
    bad = tmp_path / f"bad.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    raw = bad.read_bytes()
    bad.write_bytes({"truncated": raw[: len(raw) // 2], "text": b"hello", "empty": b"", "header": raw[:10]}[content])
    picture(tmp_path / "good.png")
    with pytest.raises(ValueError, match=rf"{re.escape(str(bad))} is not a readable picture .*; repair or remove it"):
        ImageFolder(path=str(tmp_path), image_size=4).load()


def test_more_than_eight_bits_are_refused_instead_of_cut_off(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(deep)
    with pytest.raises(ValueError, match=rf"{re.escape(str(deep))} has more than 8 bits per channel .*; convert it"):
        ImageFolder(path=str(tmp_path), image_size=4).load()


def test_trees_that_make_no_data_set_are_refused_with_the_remedy(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "is not a directory", "data.path")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no pictures", "data.path")
    picture(tmp_path / "mixed" / "a" / "x.png")
    picture(tmp_path / "mixed" / "stray.png")
    refused(tmp_path / "mixed", "stray.png lies in no class folder", "one of them (a)")
    picture(tmp_path / "half" / "train" / "a" / "x.png")
    refused(tmp_path / "half", "holds a folder train, but not both train and test", "data.path")
    for part in ("train/a", "test/b"):
        picture(tmp_path / "unknown" / part / "x.png")
    refused(tmp_path / "unknown", "lies in no class folder", "one of them (a)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "data=image_folder needs data.path=DIR"),
        ({"path": ".", "channels": 4}, r"data.channels must be 1 \(grey\) or 3 \(RGB\), but is 4"),
        ({"path": ".", "image_size": 0}, "data.image_size must be a whole number of at least 1, but is 0"),
        ({"path": ".", "image_size": [8]}, r"data.image_size must be one number or \[height,width\], but is \[8\]"),
        ({"path": ".", "image_size": [8, -8]}, "data.image_size must be a whole number of at least 1, but is -8"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(**options)
