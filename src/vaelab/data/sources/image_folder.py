"""A directory tree of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vaelab.checks import positive_int
from vaelab.data.images import Images
from vaelab.data.sources.base import Source, make_images


class ImageFolder(Source):
    """A directory tree of pictures, resized and labelled by their top-level sub-folder (all 0 without sub-folders).

    If the tree holds `train` and `test`, these are the official training and test set.

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
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.size = positive_int("data.image_size", height), positive_int("data.image_size", width)
        if channels not in (1, 3):
            raise ValueError(f"data.channels must be 1 (grey) or 3 (RGB), but is {channels}")
        self.mode = "L" if channels == 1 else "RGB"

    def load(self) -> tuple[Images, Images | None]:
        """Returns the pictures, and those of `test` apart if there are `train` and `test`."""
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is not a directory; data.path must name a directory tree of pictures")
        if (self.path / "train").is_dir() and (self.path / "test").is_dir():
            classes = self._classes(self.path / "train")
            return self._read(self.path / "train", classes), self._read(self.path / "test", classes)
        return self._read(self.path, self._classes(self.path)), None

    def _classes(self, folder: Path) -> list[str]:
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))

    def _read(self, folder: Path, classes: list[str]) -> Images:
        from PIL import Image, UnidentifiedImageError
        from tqdm import tqdm

        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in self.SUFFIXES and p.is_file())
        if not files:
            raise ValueError(f"{folder} holds no pictures ({' '.join(self.SUFFIXES)})")
        x = np.empty((len(files), *self.size, len(self.mode)), dtype=np.uint8)
        y = np.zeros(len(files), dtype=np.int64)
        height, width = self.size
        for i, file in enumerate(tqdm(files, desc=f"reading {folder}", leave=False, disable=None)):
            try:
                with Image.open(file) as picture:
                    resized = picture.convert(self.mode).resize((width, height), Image.Resampling.BILINEAR)
            except (UnidentifiedImageError, OSError, SyntaxError) as error:
                raise ValueError(f"{file} is not a readable picture ({error}); repair or remove it") from error
            x[i] = np.asarray(resized).reshape(x.shape[1:])
            top = file.relative_to(folder).parts[0]
            if classes and top not in classes:
                raise ValueError(f"{file} lies in no class folder; expected one of {', '.join(classes)}")
            y[i] = classes.index(top) if classes else 0
        return make_images(torch.from_numpy(x), torch.from_numpy(y), origin=str(folder))
