"""What the machine refuses is one sentence, too."""

from __future__ import annotations

import errno

import pytest

from vaelab.explain import of_the_machine


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "runs/a"), "runs/a cannot be used: Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "runs/a cannot be used: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), "No space left on device; give another place"),
        (FileExistsError(errno.EEXIST, "File exists", __file__), "is a file, where a directory is needed"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), "(DefaultCPUAllocator: can't"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory for this (CUDA out of"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "take a smaller data.batch_size"),
        (MemoryError("Unable to allocate 7 GiB"), "take a smaller data.batch_size"),
        (ValueError("Config group override must be a string or a list. Got NoneType"), "cannot be null or empty"),
    ],
)
def test_a_refusal_of_the_machine_is_one_sentence(error: Exception, words: str) -> None:
    assert words in of_the_machine(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        RuntimeError("mat1 and mat2"),
        OSError("no file"),
        KeyError("k"),
        FileExistsError("x"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a part of ours"),
    ],
)
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    assert of_the_machine(error) == ""
