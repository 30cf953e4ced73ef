"""The MNIST family through torchvision."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from vaelab.checks import one_of
from vaelab.data.idx import read_idx
from vaelab.data.images import Images
from vaelab.data.sources.base import Source, check_labels

CONNECT_SECONDS = 5.0  # until a server that does not accept a connection counts as absent
READ_SECONDS = 8.0  # until a server that has gone silent counts as absent
EMNIST_SPLITS = ("balanced", "letters", "digits", "byclass", "bymerge", "mnist")


class TorchvisionSource(Source):
    """A data set of the MNIST family, downloaded by torchvision with its checksums.

    Args:
        name: the class in torchvision.datasets: MNIST, FashionMNIST, KMNIST or EMNIST.
        root: folder that holds (or will hold) `name/raw`.
        split: which EMNIST split (balanced, letters, digits, byclass, bymerge, mnist); None for the others.
        download: whether missing files may be downloaded.

    Raises:
        ValueError: for an unknown name or split.
    """

    def __init__(self, *, name: str, root: str, split: str | None = None, download: bool = True) -> None:
        self.name = one_of("data.source.name", name, ("MNIST", "FashionMNIST", "KMNIST", "EMNIST"))
        self.split = one_of("data.split", str(split), EMNIST_SPLITS if name == "EMNIST" else ("None",))
        self.root = Path(root).expanduser()
        self.raw = self.root / name / "raw"
        self.origin = str(self.raw)
        self.download = download

    def load(self) -> tuple[Images, Images | None]:
        """Returns the official training and test set, after a download if files are missing."""
        if not all(os.path.isfile(self.raw / name) for name in self._files(train=True) + self._files(train=False)):
            self._fetch()
        return self._read(train=True), self._read(train=False)

    def _files(self, *, train: bool) -> tuple[str, str]:
        """Names of the raw image and label file."""
        part = "train" if train else "t10k"
        if self.name == "EMNIST":
            part = f"emnist-{self.split}-{'train' if train else 'test'}"
        return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"

    def _read(self, *, train: bool) -> Images:
        images, labels = (self.raw / name for name in self._files(train=train))
        x, y = read_idx(images, dims=3), read_idx(labels, dims=1)
        if len(x) != len(y):
            raise ValueError(
                f"{labels} holds {len(y):,} labels, but {images.name} {len(x):,} images; delete both and run again to "
                "download them, point data.root=DIR at intact files, or use data=digits"
            )
        if self.name == "EMNIST":
            x = x.transpose(1, 2)  # EMNIST's files are stored on their side
        if self.split == "letters":
            y = y.long() - 1  # counts from 1
        return Images(x=x.unsqueeze(1).contiguous(), y=check_labels(y, len(x), origin=str(labels)))

    def _fetch(self) -> None:
        """Downloads into a folder beside the final one, so that whatever happens, only whole files arrive there."""
        from torchvision import datasets

        remedy = (
            f"put the unpacked files ({', '.join(self._files(train=True))}, ...) into {self.raw}, point data.root=DIR "
            "at a folder that has them, or use data=digits"
        )
        if not self.download:
            raise ValueError(f"{self.name} is not in {self.raw}, and data.download=false; {remedy}")
        dataset = getattr(datasets, self.name)
        mirrors = answering([dataset.url] if self.name == "EMNIST" else dataset.mirrors)
        if not mirrors:
            raise ValueError(f"{self.name} is not in {self.raw}, and no server to download it from answers; {remedy}")
        downloader = type(self.name, (dataset,), {"mirrors": mirrors})
        options = {"split": self.split} if self.name == "EMNIST" else {}
        created = [folder for folder in (self.raw, *self.raw.parents) if not os.path.exists(folder)]
        partial: str | None = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with sigterm_raises(), socket_timeout(READ_SECONDS):
                partial = tempfile.mkdtemp(prefix=f".{self.name}-", dir=self.root)
                downloader(partial, download=True, **options)
                self.raw.mkdir(parents=True, exist_ok=True)
                for file in Path(partial, self.name, "raw").glob("*-ubyte"):
                    os.replace(file, self.raw / file.name)
        except Exception as error:  # sockets, HTTP, checksums and disks raise many kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{self.name} could not be downloaded into {self.raw} ({reason}); {remedy}") from error
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            for folder in created:
                with suppress(OSError):  # it is in use: the download arrived
                    folder.rmdir()


def answering(urls: Sequence[str]) -> list[str]:
    """Returns those of `urls` whose server, or the proxy to it, accepts a connection by the time that one does."""
    alive: set[str] = set()

    def connect(url: str) -> None:
        parts = urlsplit(url)
        proxy = getproxies().get(parts.scheme)
        if proxy and not proxy_bypass(parts.hostname or ""):
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with suppress(OSError):
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT_SECONDS).close()
            alive.add(url)

    # In threads, because looking up a name may hang and knows no timeout.
    threads = [threading.Thread(target=connect, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + CONNECT_SECONDS + 1
    for url, thread in zip(urls, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if url in alive:
            break
    return [url for url in urls if url in alive]


@contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Gives sockets without a timeout of their own one of `seconds`."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM leave the block like Ctrl-C does: through its clean-up."""

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
