"""The MNIST family: torchvision's download from a server on this machine, and the files it leaves."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import signal
import socket
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from vaelab.data.sources import TorchvisionSource
from vaelab.data.sources import torchvision as source_module

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RANDOM.integers(0, 256, (20, 28, 28), dtype=np.uint8),
    "train-labels-idx1-ubyte": np.arange(20) % 10,
    "t10k-images-idx3-ubyte": RANDOM.integers(0, 256, (6, 28, 28), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": np.arange(6) % 10,
}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Server:
    """Serves `files` by name; `before_body` is called after the first half of a body was sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.before_body: Callable[[], None] = lambda: None
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                outer.requests.append(name)
                if name not in outer.files:
                    self.send_error(404)
                    return
                content = outer.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                outer.before_body()
                self.wfile.write(content[len(content) // 2 :])

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def mirror(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, write_idx) -> Server:
    """A server that torchvision takes for the home of MNIST, FashionMNIST and KMNIST."""
    for name, array in ARRAYS.items():
        write_idx(tmp_path / "plain", array)
        server.files[f"{name}.gz"] = gzip.compress((tmp_path / "plain").read_bytes())
    (tmp_path / "plain").unlink()
    resources = [(name, md5(content)) for name, content in server.files.items()]
    for dataset in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
        monkeypatch.setattr(dataset, "mirrors", [server.url])
        monkeypatch.setattr(dataset, "resources", resources)
    return server


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refused(source: TorchvisionSource, *words: str) -> None:
    """Loading is refused in one sentence that names the folder and the remedies and holds all `words`."""
    with pytest.raises(ValueError, match=re.escape(str(source.raw))) as refusal:
        source.load()
    message = str(refusal.value)
    for word in (*words, "data.root=DIR", "data=digits"):
        assert word in message, message
    assert "\n" not in message


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port where attempts to connect get no reply at all: that of a server whose queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


# ---- the download


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_a_download_leaves_exactly_the_four_files(tmp_path: Path, mirror: Server, name: str) -> None:
    root = tmp_path / "deep" / "root"
    train, test = TorchvisionSource(name=name, root=str(root)).load()
    assert everything(root) == sorted([name, f"{name}/raw", *(f"{name}/raw/{file}" for file in ARRAYS)])
    np.testing.assert_array_equal(train.x[:, 0].numpy(), ARRAYS["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(test.x[:, 0].numpy(), ARRAYS["t10k-images-idx3-ubyte"])
    assert train.y.tolist() == ARRAYS["train-labels-idx1-ubyte"].tolist()
    assert test.y.tolist() == ARRAYS["t10k-labels-idx1-ubyte"].tolist()


def test_files_that_are_there_are_not_downloaded_again(tmp_path: Path, mirror: Server) -> None:
    source = TorchvisionSource(name="MNIST", root=str(tmp_path))
    first, _ = source.load()
    mirror.requests.clear()
    again, _ = TorchvisionSource(name="MNIST", root=str(tmp_path), download=False).load()
    assert mirror.requests == []
    np.testing.assert_array_equal(first.x.numpy(), again.x.numpy())


def test_a_missing_file_beside_others_is_fetched(tmp_path: Path, mirror: Server) -> None:
    source = TorchvisionSource(name="MNIST", root=str(tmp_path))
    source.load()
    (source.raw / "t10k-labels-idx1-ubyte").unlink()
    _, test = source.load()
    assert test.y.tolist() == ARRAYS["t10k-labels-idx1-ubyte"].tolist()
    assert everything(source.raw) == sorted(ARRAYS)


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize("fault", ["wrong checksum", "not found", "cut off", "no archive"])
def test_a_failed_download_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch, fault: str, existed: bool
) -> None:
    last = "t10k-labels-idx1-ubyte.gz"
    if fault == "wrong checksum":
        mirror.files[last] = mirror.files[last][:-1] + b"x"
    elif fault == "not found":
        del mirror.files[last]
    elif fault == "cut off":
        mirror.before_body = lambda: _raise(ConnectionAbortedError)
    else:
        mirror.files[last] = b"not compressed"
        resources = [*datasets.MNIST.resources[:3], (last, md5(b"not compressed"))]
        monkeypatch.setattr(datasets.MNIST, "resources", resources)
    root = tmp_path / "new" / "root"
    if existed:
        root.mkdir(parents=True)
        (root / "mine.txt").write_text("keep")
    refused(TorchvisionSource(name="MNIST", root=str(root)), "MNIST could not be downloaded", "train-images-idx3-ubyte")
    assert everything(tmp_path) == (["new", "new/root", "new/root/mine.txt"] if existed else [])


def _raise(kind: type[Exception]) -> None:
    raise kind


@pytest.mark.parametrize(("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, mirror: Server, signum: signal.Signals, raised: type[BaseException]
) -> None:
    once = iter([signum])  # torchvision asks for each file twice, and a second signal would stop the clean-up

    def interrupt() -> None:
        for number in once:
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    mirror.before_body = interrupt
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with pytest.raises(raised) as stop:
            TorchvisionSource(name="MNIST", root=str(tmp_path / "root")).load()
        assert everything(tmp_path) == []
        assert stop.type is KeyboardInterrupt or stop.value.code == 128 + signal.SIGTERM
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)  # the former handler is back
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_server_that_does_not_answer_is_passed_over(
    tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch, black_hole: int
) -> None:
    mirrors = [f"http://127.0.0.1:{black_hole}/", mirror.url]
    monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors)
    monkeypatch.setattr(source_module, "CONNECT_SECONDS", 0.2)
    start = time.monotonic()
    train, _ = TorchvisionSource(name="MNIST", root=str(tmp_path)).load()
    assert len(train) == 20
    assert time.monotonic() - start < source_module.READ_SECONDS  # no file has waited for it
    assert datasets.MNIST.mirrors == mirrors


def no_name_server(*args: object, **kwargs: object) -> list:
    time.sleep(20)
    raise socket.gaierror("no answer")


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("network", ["refused", "unroutable", "no name", "silent"])
def test_without_a_network_there_is_one_sentence_soon_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, silent: int, black_hole: int
) -> None:
    # As shipped, the longest wait is that for a connection and two for an answer; here all are cut to a moment.
    assert source_module.CONNECT_SECONDS + 1 + 2 * source_module.READ_SECONDS < 25
    monkeypatch.setattr(source_module, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(source_module, "READ_SECONDS", 0.2)
    if network == "no name":
        monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
    port = {"refused": unused_port(), "unroutable": black_hole}.get(network, silent)
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{port}/"] * 2)
    start = time.monotonic()
    said = "could not be downloaded" if network == "silent" else "no server to download it from answers"
    refused(TorchvisionSource(name="MNIST", root=str(tmp_path / "root")), said)
    assert time.monotonic() - start < 10
    assert everything(tmp_path) == []


def test_behind_a_proxy_the_proxy_is_asked(tmp_path: Path, mirror: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://mnist.invalid/files/"])
    monkeypatch.setenv("http_proxy", mirror.url)  # the server ignores the host that it is asked for
    train, _ = TorchvisionSource(name="MNIST", root=str(tmp_path)).load()
    assert len(train) == 20


def test_no_download_is_tried_when_none_is_wanted(tmp_path: Path, mirror: Server) -> None:
    source = TorchvisionSource(name="MNIST", root=str(tmp_path), download=False)
    refused(source, "MNIST is not in", "data.download=false")
    assert mirror.requests == []
    assert everything(tmp_path) == []


def test_a_root_that_cannot_be_written_is_one_sentence(tmp_path: Path, mirror: Server) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(TorchvisionSource(name="MNIST", root=str(tmp_path / "file" / "root")), "could not be downloaded")
    assert everything(tmp_path) == ["file"]


# ---- the files


@pytest.fixture
def raw(tmp_path: Path, write_idx) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in ARRAYS.items():
        write_idx(folder / name, array)
    return folder


def test_a_truncated_file_is_refused_by_name(tmp_path: Path, raw: Path) -> None:
    file = raw / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    refused(TorchvisionSource(name="MNIST", root=str(tmp_path)), f"{file} is corrupt", f"delete {file}")


def test_labels_that_do_not_match_the_images_are_refused_by_name(tmp_path: Path, raw: Path, write_idx) -> None:
    write_idx(raw / "train-labels-idx1-ubyte", np.zeros(19))
    source = TorchvisionSource(name="MNIST", root=str(tmp_path))
    refused(source, f"{raw}/train-labels-idx1-ubyte holds 19 labels, but train-images-idx3-ubyte 20 images")


def test_images_and_labels_of_the_wrong_kind_are_refused_by_name(tmp_path: Path, raw: Path) -> None:
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "train-images-idx3-ubyte").read_bytes())
    refused(TorchvisionSource(name="MNIST", root=str(tmp_path)), "train-labels-idx1-ubyte is not an IDX file of 1-dim")


def test_a_tilde_in_root_is_the_home_directory(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    train, _ = TorchvisionSource(name="MNIST", root="~").load()
    assert len(train) == 20


# ---- EMNIST


def emnist_files(tmp_path: Path, write_idx, split: str, first_label: int) -> dict[str, bytes]:
    files = {}
    for part, size in (("train", 12), ("test", 5)):
        upright = RANDOM.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        for kind, array in (
            ("images-idx3", upright.transpose(0, 2, 1)),
            ("labels-idx1", np.arange(size) % 7 + first_label),
        ):
            write_idx(tmp_path / "plain", np.ascontiguousarray(array))
            files[f"emnist-{split}-{part}-{kind}-ubyte"] = (tmp_path / "plain").read_bytes()
        files[f"upright {part}"] = upright.tobytes()
    (tmp_path / "plain").unlink()
    return files


@pytest.mark.parametrize(("split", "first_label"), [("balanced", 0), ("letters", 1), ("digits", 0)])
def test_emnist_is_turned_upright_and_labelled_from_0(tmp_path: Path, write_idx, split: str, first_label: int) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    files = emnist_files(tmp_path, write_idx, split, first_label)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    train, test = TorchvisionSource(name="EMNIST", root=str(tmp_path), split=split).load()
    assert train.x.numpy().tobytes() == files["upright train"]
    assert test.x.numpy().tobytes() == files["upright test"]
    assert train.x.is_contiguous()
    assert train.y.tolist() == [i % 7 for i in range(12)]


def test_emnist_is_downloaded_and_leaves_only_its_files(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, write_idx
) -> None:
    files = emnist_files(tmp_path, write_idx, "letters", 1)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(f"gzip/{name}.gz", gzip.compress(content))
        zipped.writestr("gzip/emnist-letters-mapping.txt", "1 65 97")
    server.files["gzip.zip"] = archive.getvalue()
    monkeypatch.setattr(datasets.EMNIST, "url", f"{server.url}gzip.zip")
    monkeypatch.setattr(datasets.EMNIST, "md5", md5(archive.getvalue()))
    root = tmp_path / "root"
    train, test = TorchvisionSource(name="EMNIST", root=str(root), split="letters").load()
    assert (len(train), len(test)) == (12, 5)
    assert everything(root / "EMNIST" / "raw") == sorted(name for name in files if name.endswith("-ubyte"))
    assert everything(root)[0] == "EMNIST"


def test_names_and_splits_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.source.name must be one of .*, but is 'CIFAR10'"):
        TorchvisionSource(name="CIFAR10", root=str(tmp_path))
    with pytest.raises(ValueError, match=r"data.split must be one of .*, but is 'leters'; did you mean 'letters'"):
        TorchvisionSource(name="EMNIST", root=str(tmp_path), split="leters")
    with pytest.raises(ValueError, match=r"data\.split must be one of balanced, .*, but is 'None'"):
        TorchvisionSource(name="EMNIST", root=str(tmp_path))
    with pytest.raises(ValueError, match=r"data\.split must be one of None, but is 'letters'"):
        TorchvisionSource(name="MNIST", root=str(tmp_path), split="letters")
