"""The IDX file format of MNIST and its relatives."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor


def read_idx(path: Path, *, dims: int) -> Tensor:
    """Reads an uncompressed IDX file of unsigned bytes (the MNIST format) into a uint8 tensor.

    Raises:
        ValueError: naming the file, if it is truncated, too long or not an IDX file of so many dimensions.
    """
    raw = path.read_bytes()
    remedy = f"delete {path} and run again to download it, point data.root=DIR at intact files, or use data=digits"
    head = 4 + 4 * dims
    if len(raw) < head or raw[:4] != bytes([0, 0, 8, dims]):
        raise ValueError(f"{path} is not an IDX file of {dims}-dimensional bytes; {remedy}")
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    expected = head + math.prod(shape)
    if len(raw) != expected:
        raise ValueError(f"{path} is corrupt: its header promises {expected:,} bytes, but it has {len(raw):,}; {remedy}")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=head).view(shape)
