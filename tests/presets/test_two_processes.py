"""Two processes train every preset together and end with the same weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from presets import PRESETS

SCRIPT = Path(__file__).with_name("two_processes.py")
FEW = ("vae", "vq_vae", "factor_vae", "m2")  # one of every kind of training state


def train_together(folder: Path, presets: list[str]) -> list[dict[str, dict[str, object]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "test",  # as torchrun starts processes
            "OMP_NUM_THREADS": "1",
        }
        words = [sys.executable, str(SCRIPT), str(folder), *presets]
        processes.append(
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    try:
        outputs = [process.communicate(timeout=1200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], outputs[0][-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    "presets", [pytest.param(list(FEW), id="few"), pytest.param(PRESETS, id="all", marks=pytest.mark.slow)]
)
def test_two_processes_agree(presets: list[str], tmp_path: Path) -> None:
    one, two = train_together(tmp_path, presets)
    assert set(one) >= set(presets)
    assert one == two
    assert {figures["steps"] for figures in one.values()} == {3}
