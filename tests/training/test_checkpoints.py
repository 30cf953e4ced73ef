from __future__ import annotations

import pytest
import torch

from vaelab.training import AtomicCheckpointIO


def test_an_interrupted_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def half_written(content, file):
        file.write(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_written)
        with pytest.raises(OSError, match="no space left"):
            AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_write_replaces_the_old_checkpoint(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    for epoch in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"epoch": epoch}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 2}
