"""MNIST's file format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vaelab.data.idx import read_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)


def test_what_was_written_is_read(tmp_path: Path, write_idx) -> None:
    path = tmp_path / "images"
    write_idx(path, IMAGES)
    read = read_idx(path, dims=3)
    assert read.dtype == torch.uint8
    np.testing.assert_array_equal(read.numpy(), IMAGES)
    assert path.read_bytes()[:8] == bytes([0, 0, 8, 3, 0, 0, 0, 5])


def test_torchvision_reads_the_same(tmp_path: Path, write_idx) -> None:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    write_idx(tmp_path / "images", IMAGES)
    write_idx(tmp_path / "labels", IMAGES[:, 0, 0])
    assert torch.equal(read_image_file(str(tmp_path / "images")), read_idx(tmp_path / "images", dims=3))
    assert torch.equal(read_label_file(str(tmp_path / "labels")), read_idx(tmp_path / "labels", dims=1).long())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "is corrupt: its header promises 76 bytes, but it has 75"),
        (lambda raw: raw[:20], "is corrupt: its header promises 76 bytes, but it has 20"),
        (lambda raw: raw + b"x", "is corrupt: its header promises 76 bytes, but it has 77"),
        (lambda raw: raw[:10], "is not an IDX file of 3-dimensional bytes"),
        (lambda raw: b"", "is not an IDX file of 3-dimensional bytes"),
        (lambda raw: bytes([0, 0, 8, 1]) + raw[4:], "is not an IDX file of 3-dimensional bytes"),
        (lambda raw: bytes([0, 0, 13, 3]) + raw[4:], "is not an IDX file of 3-dimensional bytes"),
        (lambda raw: b"<!DOCTYPE html>" + raw, "is not an IDX file of 3-dimensional bytes"),
        (lambda raw: raw[:4] + bytes([255]) * 12, "is corrupt: its header promises 79,228,162,458,924,105,"),
        (lambda raw: raw[:7] + bytes([0]) + raw[8:16], "is empty: its header says 0x3x4"),
    ],
    ids=["short", "shorter", "long", "header", "nothing", "labels", "floats", "web page", "huge", "no images"],
)
def test_a_damaged_file_is_refused_with_name_and_remedy(tmp_path: Path, write_idx, damage, message: str) -> None:
    path = tmp_path / "images"
    write_idx(path, IMAGES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=re.escape(f"{path} {message}")) as refusal:
        read_idx(path, dims=3)
    assert all(remedy in str(refusal.value) for remedy in (f"delete {path}", "data.root=DIR", "data=digits"))


def test_a_file_that_cannot_be_opened_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing cannot be read \(No such file or directory\); .*data=digits"):
        read_idx(tmp_path / "nothing", dims=3)
