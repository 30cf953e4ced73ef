"""The IDX file format of MNIST and its relatives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read_idx(path: Path, *, dims: int) -> Tensor:
    """Reads an uncompressed IDX file of unsigned bytes (the MNIST format) into a uint8 tensor.

    Raises:
        ValueError: naming the file, if it cannot be read, is truncated, too long, empty, or not an IDX file of so many
            dimensions.
    """
    remedy = f"delete {path} and run again to download it, point data.root=DIR at intact files, or use data=digits"
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    head = 4 + 4 * dims
    if len(raw) < head or raw[:4].tolist() != [0, 0, 8, dims]:
        raise ValueError(f"{path} is not an IDX file of {dims}-dimensional bytes; {remedy}")
    shape = raw[4:head].view(">u4").tolist()
    expected = head + math.prod(shape)
    if len(raw) != expected:
        raise ValueError(
            f"{path} is corrupt: its header promises {expected:,} bytes, but it has {len(raw):,}; {remedy}"
        )
    if expected == head:
        raise ValueError(f"{path} is empty: its header says {'x'.join(map(str, shape))}; {remedy}")
    return torch.from_numpy(raw[head:]).view(shape)
