"""What tests of all rooms share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

WriteIDX = Callable[[Path, np.ndarray], None]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"  # beside the repository


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory, write_idx: WriteIDX) -> Path:
    """A folder that holds MNIST/raw: VAELAB_TEST_DATA, a folder beside the repository, or digits that look like it."""
    if given := os.environ.get("VAELAB_TEST_DATA"):
        return Path(given)
    if (SHARED / "MNIST" / "raw").is_dir():
        return SHARED
    root = tmp_path_factory.mktemp("mnist")
    write_lookalike_mnist(root / "MNIST" / "raw", write_idx)
    return root


@pytest.fixture(scope="session")
def write_idx() -> WriteIDX:
    """write_idx(path, array) writes unsigned bytes in MNIST's own format."""

    def write(path: Path, array: np.ndarray) -> None:
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
        path.write_bytes(header + array.astype(np.uint8).tobytes())

    return write


def write_lookalike_mnist(raw: Path, write_idx: WriteIDX) -> None:
    """Writes 60,000 + 10,000 images of 28x28 in the IDX format: scikit-learn's 8x8 digits, enlarged and shifted.

    Training and test images come from different digits.
    """
    from sklearn.datasets import load_digits

    raw.mkdir(parents=True)
    digits = load_digits()
    small = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    large = torch.nn.functional.interpolate(small, size=(20, 20), mode="bicubic").clamp(0, 1).mul(255).round().byte()
    framed = torch.nn.functional.pad(large[:, 0], (4, 4, 4, 4))
    generator = torch.Generator().manual_seed(0)
    for name, size, first, last in (("train", 60_000, 0, 1500), ("t10k", 10_000, 1500, len(framed))):
        which = torch.randint(first, last, (size,), generator=generator)
        shift = torch.randint(0, 49, (size,), generator=generator)
        x = torch.empty(size, 28, 28, dtype=torch.uint8)
        for k in range(49):
            moved = framed.roll((k // 7 - 3, k % 7 - 3), (1, 2))
            x[shift == k] = moved[which[shift == k]]
        write_idx(raw / f"{name}-images-idx3-ubyte", x.numpy())
        write_idx(raw / f"{name}-labels-idx1-ubyte", digits.target[which.numpy()])
