"""The user's own arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.data.images import Images
from vaelab.data.sources.base import Source, make_images

SYNONYMS = {"images": "x", "labels": "y"}


class Arrays(Source):
    """The user's own arrays: a .npy, .npz or .pt file of images N x H x W (x C), with optional labels.

    A .npz file or a .pt dictionary may hold `x` and `y` (or `x_train`, `y_train`, `x_test`, `y_test`: an official test
    set). Integer images must be uint8 (0 to 255) or bool; floating-point ones are taken as they are. Nothing in the
    file is executed: pickled objects are refused.

    Args:
        path: the file.
    """

    def __init__(self, *, path: str | None) -> None:
        if path is None:
            raise ValueError("data=arrays needs data.path=FILE, a .npy, .npz or .pt file of images N x H x W (x C)")
        self.path = Path(path).expanduser()
        self.origin = str(self.path)

    def load(self) -> tuple[Images, Images | None]:
        """Returns the file's images, and its test set if it has one."""
        arrays = self._arrays()
        if "x" in arrays:
            return self._images(arrays, "x", "y", self.origin), None
        needed = {"x_train", "x_test"} | ({"y_train", "y_test"} if {"y_train", "y_test"} & arrays.keys() else set())
        if missing := sorted(needed - arrays.keys()):
            raise ValueError(
                f"{self.path} holds {', '.join(sorted(arrays)) or 'nothing'}, but not {' and '.join(missing)}; "
                "name the arrays x (and y), or x_train and x_test (and y_train and y_test)"
            )
        train, test = (self._images(arrays, f"x_{p}", f"y_{p}", f"{self.path} ({p})") for p in ("train", "test"))
        return train, test

    def _images(self, arrays: dict[str, object], x: str, y: str, origin: str) -> Images:
        labels = self._tensor(arrays[y]) if y in arrays else None
        return make_images(self._tensor(arrays[x]), labels, origin=origin)

    def _arrays(self) -> dict[str, object]:
        """Reads what the file holds by name; a single array is `x` whatever its name."""
        if self.path.suffix not in (".npy", ".npz", ".pt"):
            raise ValueError(f"{self.path} is not a .npy, .npz or .pt file; data.path must name one")
        if not self.path.is_file():
            raise ValueError(f"{self.path} does not exist; data.path must name a .npy, .npz or .pt file")
        try:
            found = self._read()
        except Exception as error:  # numpy and torch raise many kinds for a damaged file
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"{self.path} could not be read ({reason}); write plain numbers with numpy.save, numpy.savez or "
                "torch.save"
            ) from error
        if not isinstance(found, Mapping):
            return {"x": found}
        arrays = {SYNONYMS.get(str(name), str(name)): values for name, values in found.items()}
        if len(arrays) == 1 and not {"x_train", "x_test"} & arrays.keys():
            return {"x": next(iter(arrays.values()))}
        return arrays

    def _read(self) -> object:
        if self.path.suffix == ".pt":
            if zipfile.is_zipfile(self.path):  # torch.load does not look at the checksums
                with zipfile.ZipFile(self.path) as archive:
                    if damaged := archive.testzip():
                        raise ValueError(f"the checksum of {damaged} in it is wrong")
            return torch.load(self.path, map_location="cpu", weights_only=True)
        file = np.load(self.path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return file
        with file:
            return dict(file)

    def _tensor(self, values: object) -> Tensor:
        if isinstance(values, Tensor):
            return values
        if not isinstance(values, np.ndarray):
            raise ValueError(
                f"{self.path} must hold a tensor, or a dictionary of tensors x (and y), but holds "
                f"{type(values).__name__}; write it again with torch.save({{'x': x, 'y': y}}, FILE)"
            )
        try:
            return torch.from_numpy(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))
        except TypeError as error:
            raise ValueError(
                f"{self.path} holds values that are not numbers ({values.dtype}); write numbers"
            ) from error
