"""The MNIST family through torchvision."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from vaelab.checks import one_of
from vaelab.data.idx import read_idx
from vaelab.data.images import Images
from vaelab.data.sources.base import Source

CONNECT_SECONDS = 8


class TorchvisionSource(Source):
    """A data set of the MNIST family, downloaded by torchvision with its checksums.

    Args:
        name: the class in torchvision.datasets: MNIST, FashionMNIST, KMNIST, EMNIST or QMNIST.
        root: folder that holds (or will hold) `name/raw`.
        split: which EMNIST split (balanced, letters, digits, byclass, bymerge, mnist); else None.
        download: whether missing files may be downloaded.
    """

    def __init__(self, *, name: str, root: str, split: str | None = None, download: bool = True) -> None:
        self.name = one_of("data.source.name", name, ("MNIST", "FashionMNIST", "KMNIST", "EMNIST"))
        self.root = Path(root).expanduser()
        self.split = split
        self.download = download

    def load(self) -> tuple[Images, Images | None]:
        """Returns the official training and test set, after a download if files are missing."""
        if not self._exists(self.root):
            self._fetch()
        return self._read(train=True), self._read(train=False)

    def _files(self, *, train: bool) -> tuple[str, str]:
        """Names of the raw image and label file."""
        part = "train" if train else ("test" if self.split else "t10k")
        stem = f"emnist-{self.split}-{part}" if self.split else part
        return f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"

    def _raw(self, root: Path) -> Path:
        return root / self.name / "raw"

    def _exists(self, root: Path) -> bool:
        names = self._files(train=True) + self._files(train=False)
        return all((self._raw(root) / name).is_file() for name in names)

    def _read(self, *, train: bool) -> Images:
        images, labels = (self._raw(self.root) / name for name in self._files(train=train))
        x, y = read_idx(images, dims=3), read_idx(labels, dims=1).long()
        if len(x) != len(y):
            raise ValueError(
                f"{labels} holds {len(y)} labels, but {images.name} {len(x)} images; delete both and run again to "
                "download them, or use data=digits"
            )
        if self.name == "EMNIST":
            x = x.transpose(1, 2)  # EMNIST's files are stored on their side
            y = y - y.min()  # the letters split counts from 1
        return Images(x=x.unsqueeze(1).contiguous(), y=y)

    def _fetch(self) -> None:
        from torchvision import datasets

        remedy = f"put the files into {self._raw(self.root)}, point data.root=DIR at a folder that has them, or use data=digits"
        if not self.download:
            raise ValueError(f"{self.name} is not in {self._raw(self.root)} and data.download=false; {remedy}")
        dataset = getattr(datasets, self.name)
        mirrors = [self._url(dataset)] if self.name == "EMNIST" else list(dataset.mirrors)
        if not any(_answers(url) for url in mirrors):
            raise ValueError(f"{self.name} is not in {self._raw(self.root)} and no server to download it from answers; {remedy}")
        self.root.mkdir(parents=True, exist_ok=True)
        # Into a folder beside the final one, which then appears whole: an interrupted download leaves nothing behind.
        partial = Path(tempfile.mkdtemp(prefix=f".{self.name}-", dir=self.root))
        try:
            with _socket_timeout(30):
                if self.split:
                    dataset(str(partial), split=self.split, train=True, download=True)
                else:
                    dataset(str(partial), train=True, download=True)
            for archive in self._raw(partial).glob("*.gz"):
                archive.unlink()
            target = self._raw(self.root)
            target.mkdir(parents=True, exist_ok=True)
            for file in self._raw(partial).iterdir():
                if file.is_file():
                    os.replace(file, target / file.name)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{self.name} could not be downloaded ({error}); {remedy}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @staticmethod
    def _url(dataset: type) -> str:
        return str(dataset.url)  # type: ignore[attr-defined]


def _answers(url: str) -> bool:
    """Whether the server of `url` accepts a connection; the look-up of its name may hang, so it has a deadline too."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
        except OSError:
            return
        connected.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 2)
    return connected.is_set()


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
