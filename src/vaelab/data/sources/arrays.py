"""The user's own arrays."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.data.images import Images
from vaelab.data.sources.base import Source, make_images

UNREADABLE = (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)


class Arrays(Source):
    """The user's own arrays: a .npy, .npz or .pt file of images N x H x W (x C), with optional labels.

    A .npz file or a .pt dictionary may hold `x` and `y` (or `x_train`, `y_train`, `x_test`, `y_test`: an official test
    set). Integer images must be uint8 (0 to 255) or bool; floating-point ones are taken as they are.

    Args:
        path: the file.
    """

    def __init__(self, *, path: str | None) -> None:
        if path is None:
            raise ValueError("data=arrays needs data.path=FILE, a .npy, .npz or .pt file of images N x H x W (x C)")
        self.path = Path(path).expanduser()

    def load(self) -> tuple[Images, Images | None]:
        """Returns the file's images, and its test set if it has one."""
        arrays = self._arrays()
        if "x_train" in arrays or "x_test" in arrays:
            missing = {"x_train", "x_test"} - arrays.keys()
            if missing:
                raise ValueError(f"{self.path} holds {', '.join(sorted(arrays))}, but {missing.pop()} is missing")
            return self._images(arrays, "_train"), self._images(arrays, "_test")
        return self._images(arrays, ""), None

    def _arrays(self) -> dict[str, Tensor]:
        if not self.path.is_file():
            raise ValueError(f"{self.path} does not exist; data.path must name a .npy, .npz or .pt file")
        try:
            if self.path.suffix == ".npz":
                with np.load(self.path, allow_pickle=False) as file:
                    found: object = dict(file)
            elif self.path.suffix == ".npy":
                found = {"x": np.load(self.path, allow_pickle=False)}
            elif self.path.suffix == ".pt":
                found = torch.load(self.path, map_location="cpu", weights_only=True)
            else:
                raise ValueError("it is not a .npy, .npz or .pt file")
        except UNREADABLE as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{self.path} could not be read: {reason}") from error
        if isinstance(found, Tensor):
            found = {"x": found}
        if not isinstance(found, dict):
            raise ValueError(f"{self.path} must hold a tensor or a dictionary with x (and y), not {type(found).__name__}")
        names = {"images": "x", "labels": "y"}
        arrays = {names.get(str(k), str(k)): v for k, v in found.items()}
        if len(arrays) == 1 and "x" not in arrays:
            arrays = {"x": next(iter(arrays.values()))}
        if not {"x", "x_train", "x_test"} & arrays.keys():
            raise ValueError(f"{self.path} holds {', '.join(sorted(arrays)) or 'nothing'}, but no images x (or x_train and x_test)")
        return {k: v if isinstance(v, Tensor) else _tensor(v, self.path) for k, v in arrays.items()}

    def _images(self, arrays: dict[str, Tensor], suffix: str) -> Images:
        x = arrays[f"x{suffix}"]
        y = arrays.get(f"y{suffix}")
        return make_images(x, y, origin=str(self.path))


def _tensor(array: object, path: Path) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as error:
        raise ValueError(f"{path} holds values that are not numbers ({np.asarray(array).dtype})") from error
