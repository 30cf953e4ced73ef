"""What was measured of a run, kept beside it: figures in `evaluation.json`, values of every image in an archive."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from vaelab.errors import UserError
from vaelab.evaluation import Figure
from vaelab.experiment.files import write_json

RESULTS = "evaluation.json"
VALUES = "evaluation_values.npz"
WRITTEN_EVERY = 10.0  # seconds


class Results:
    """The measurements of a run: for every part of the evaluation one entry for each settings, the newest first.

    An entry holds `settings`, `seconds` and `figures`. Those of a checkpoint that was written anew since are dropped
    when another one of it is added.

    Args:
        folder: of the run.

    Raises:
        UserError: if the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.archive = folder / RESULTS, folder / VALUES
        self.entries = read_entries(self.file)
        self.values = read_values(self.archive)

    def find(self, part: str, settings: Mapping[str, Any]) -> list[Figure] | None:
        """Returns the figures of a part that were measured with these settings, or None."""
        for entry in self.entries.get(part, []):
            if entry["settings"] == settings:
                return [self._with_values(Figure(**figure), settings) for figure in entry["figures"]]
        return None

    def add(self, part: str, settings: Mapping[str, Any], seconds: float, figures: list[Figure]) -> None:
        """Keeps the figures of a part and writes both files; each is either as it was or whole."""
        weights = settings["checkpoint"]
        others = [
            entry
            for entry in self.entries.get(part, [])
            if entry["settings"] != settings
            and (entry["settings"]["checkpoint"] == weights or not same_file(entry["settings"]["checkpoint"], weights))
        ]
        entry = {"settings": dict(settings), "seconds": seconds, "figures": [plain(figure) for figure in figures]}
        self.entries[part] = [entry, *others]
        self.values |= {key(figure, settings): figure.values.numpy() for figure in figures if figure.values is not None}
        known = {key(figure, e["settings"]) for es in self.entries.values() for e in es for figure in e["figures"]}
        self.values = {name: values for name, values in self.values.items() if name in known}
        write_arrays(self.archive, self.values)
        write_json(self.file, self.entries)

    def _with_values(self, figure: Figure, settings: Mapping[str, Any]) -> Figure:
        values = self.values.get(key(figure, settings))
        return figure if values is None else replace(figure, values=torch.from_numpy(values))


class Unfinished(dict[str, list[torch.Tensor]]):
    """Values of the images that a part of the evaluation has come to, kept for when it is interrupted.

    They are written to a file of the part now and then; one with other settings is not read, and lost.

    Args:
        folder: of the run.
        part: its name.
        settings: all that the values depend on.
    """

    def __init__(self, folder: Path, part: str, settings: Mapping[str, Any]) -> None:
        self.file = folder / f"evaluation_unfinished_{part}.npz"
        self.settings = json.dumps(settings, sort_keys=True)
        self.written = time.monotonic()
        found = read_values(self.file)
        same = str(found.pop("settings", "")) == self.settings
        super().__init__({name: [torch.from_numpy(values)] for name, values in found.items()} if same else {})

    def __setitem__(self, name: str, batches: list[torch.Tensor]) -> None:
        """Keeps the batches of a loop, and writes the file if that was long ago."""
        super().__setitem__(name, batches)
        if time.monotonic() - self.written > WRITTEN_EVERY:
            self.write()

    def write(self) -> None:
        """Writes the file, unless there is nothing to keep, or no room for it."""
        if self:
            values = {name: torch.cat(batches).numpy() for name, batches in self.items()}
            with suppress(OSError):
                write_arrays(self.file, {"settings": np.array(self.settings), **values})
            self.written = time.monotonic()

    def drop(self) -> None:
        """Removes the file: the part is finished."""
        self.file.unlink(missing_ok=True)


def key(figure: Figure | Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Returns what the values of a figure are called in the archive."""
    name = figure.name if isinstance(figure, Figure) else figure["name"]
    return f"{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}/{name}"


def same_file(one: str, other: str) -> bool:
    """Returns whether two checksums are of a file of the same name."""
    return one.split()[0] == other.split()[0]


def plain(figure: Figure) -> dict[str, Any]:
    """Returns a figure as it is stored, without the values of the images."""
    return {name: value for name, value in asdict(figure).items() if name != "values"}


def read_entries(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns what was measured before, by part.

    Raises:
        UserError: if the file is damaged.
    """
    if not file.is_file():
        return {}
    try:
        found: dict[str, list[dict[str, Any]]] = json.loads(file.read_text())
        for entries in found.values():
            if not isinstance(entries, list):
                raise TypeError("a part needs a list of measurements")
            for entry in entries:
                entry["settings"]["checkpoint"], entry["figures"]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it to measure everything anew") from error
    return found


def read_values(file: Path) -> dict[str, np.ndarray]:
    """Returns the values of every image that were stored before; none from a file that cannot be read."""
    try:
        with np.load(file) as found:
            return dict(found)
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error):
        return {}


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an archive that is either as it was or whole."""
    draft = file.with_suffix(f".{os.getpid()}.npz")
    np.savez_compressed(draft, **arrays)  # type: ignore[arg-type]
    draft.replace(file)
