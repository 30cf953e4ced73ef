"""A directory tree of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from vaelab.checks import positive_int
from vaelab.data.images import Images
from vaelab.data.sources.base import Source


class ImageFolder(Source):
    """A directory tree of pictures, resized and labelled by their top-level sub-folder (all 0 without sub-folders).

    If the tree holds `train` and `test`, these are the official training and test set, and nothing else is read.
    Resizing does not keep the ratio of height to width; hidden files and folders are left out.

    Args:
        path: the directory.
        image_size: height and width to resize to, one number or two.
        channels: 1 (grey) or 3 (RGB).
    """

    SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

    def __init__(self, *, path: str | None, image_size: int | list[int] = 64, channels: int = 3) -> None:
        if path is None:
            raise ValueError("data=image_folder needs data.path=DIR, a directory tree of pictures")
        self.path = Path(path).expanduser()
        self.origin = str(self.path)
        size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        if len(size) != 2:
            raise ValueError(f"data.image_size must be one number or [height,width], but is {size}")
        self.height, self.width = (positive_int("data.image_size", side) for side in size)
        if channels not in (1, 3):
            raise ValueError(f"data.channels must be 1 (grey) or 3 (RGB), but is {channels}")
        self.mode = "L" if channels == 1 else "RGB"

    def load(self) -> tuple[Images, Images | None]:
        """Returns the pictures, and those of `test` apart if there are `train` and `test`."""
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is not a directory; data.path must name a directory tree of pictures")
        classes = self._classes(self.path)
        parts = {"train", "test"} & set(classes)
        if len(parts) == 1:
            raise ValueError(
                f"{self.path} holds a folder {parts.pop()}, but not both train and test; add the other, or let "
                "data.path name the folder of the classes"
            )
        if not parts:
            return self._read(self.path, classes), None
        classes = self._classes(self.path / "train")
        return self._read(self.path / "train", classes), self._read(self.path / "test", classes)

    def _classes(self, folder: Path) -> list[str]:
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))

    def _files(self, folder: Path) -> list[Path]:
        found: list[Path] = []
        for where, folders, names in os.walk(folder, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(where, name) for name in names if not name.startswith(".")]
        return sorted(file for file in found if file.suffix.lower() in self.SUFFIXES)

    def _read(self, folder: Path, classes: list[str]) -> Images:
        from tqdm import tqdm

        files = self._files(folder)
        if not files:
            raise ValueError(
                f"{folder} holds no pictures ({' '.join(self.SUFFIXES)}); data.path must name a tree of them"
            )
        x = np.empty((len(files), len(self.mode), self.height, self.width), dtype=np.uint8)
        y = torch.zeros(len(files), dtype=torch.int64)
        for i, file in enumerate(tqdm(files, desc=f"reading {folder}", leave=False, disable=None)):
            top = file.relative_to(folder).parts[0]
            if classes and top not in classes:
                raise ValueError(f"{file} lies in no class folder; move it into one of them ({', '.join(classes)})")
            x[i] = self._picture(file)
            y[i] = classes.index(top) if classes else 0
        return Images(x=torch.from_numpy(x), y=y)

    def _picture(self, file: Path) -> np.ndarray:
        """Reads a picture as (C, H, W), uint8."""
        from PIL import Image

        try:
            with Image.open(file) as picture:
                deep = picture.mode.startswith(("I", "F"))
                resized = picture.convert(self.mode).resize((self.width, self.height), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            raise ValueError(f"{file} is not a readable picture ({error}); repair or remove it") from error
        if deep:  # Pillow would cut off everything above 255
            raise ValueError(f"{file} has more than 8 bits per channel ({picture.mode}); convert it to 8 bits")
        return np.atleast_3d(np.asarray(resized)).transpose(2, 0, 1)
