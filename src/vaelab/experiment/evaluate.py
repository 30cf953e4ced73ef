"""One command that judges finished runs: figures with standard errors and protocol, kept beside the run."""

from __future__ import annotations

import glob
import json
import math
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from vaelab.data import ImageDataModule
from vaelab.errors import UserError
from vaelab.evaluation import Evaluation, Figure, Subject
from vaelab.experiment.files import BEST, HYDRA_CONFIG, write_json
from vaelab.experiment.instantiate import build
from vaelab.experiment.load import find_checkpoint, load, read_checkpoint
from vaelab.experiment.report import flat
from vaelab.locations import CONF
from vaelab.numerics import seeded

RESULTS = "evaluation.json"
VALUES = "evaluation_values.npz"  # of every image, for differences between runs
COMPARED = ("likelihood/elbo", "likelihood/bound")
OWN_DATA = ("arrays", "image_folder", "latents")  # data sets that are nothing without a place
SPLITS = ("train", "val", "test")
Item = TypeVar("Item")


def evaluate(cfg: DictConfig) -> dict[str, list[Figure]]:
    """Evaluates the runs that `cfg.run` names, writes `evaluation.json` into each and prints a table.

    Returns:
        The figures of every run directory.

    Raises:
        UserError: if there is no such run, or the configuration makes no sense.
    """
    parts = chosen(cfg)
    if cfg.split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, but is {cfg.split!r}")
    if cfg.limit is not None and (isinstance(cfg.limit, bool) or not isinstance(cfg.limit, int) or cfg.limit < 2):
        raise UserError(f"limit must be null or a whole number of at least 2 images, but is {cfg.limit!r}")
    if not isinstance(cfg.compile, bool):
        raise UserError(f"compile must be true or false, but is {cfg.compile!r}")
    found: dict[str, list[Figure]] = {}
    runs, refused = directories(str(cfg.run)), []
    for directory in runs:
        try:
            found[str(directory)] = evaluate_run(directory, parts, cfg)
        except UserError as error:
            if len(runs) == 1:
                raise
            refused.append(str(directory))
            print(f"{directory}: {error}", file=sys.stderr)  # the others go on
    if refused:
        raise UserError(f"{len(refused)} of {len(runs)} runs could not be evaluated: {', '.join(refused)}")
    print_differences(found)
    return found


def chosen(cfg: DictConfig) -> dict[str, Evaluation]:
    """Returns the parts of the evaluation that `cfg.parts` names.

    Raises:
        UserError: for a part that does not exist, or an entry that it does not take.
    """
    known = [str(name) for name, node in cfg.items() if isinstance(node, DictConfig) and "_target_" in node]
    wanted = [cfg.parts] if isinstance(cfg.parts, str) else list(cfg.parts)
    if not wanted:
        raise UserError(f"parts must be some of {', '.join(known)}, but is empty")
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"parts must be some of {', '.join(known)}, but there is {', '.join(map(str, unknown))}")
    return {name: build(with_other_data(cfg[name], name, cfg.data_root), name) for name in wanted}


def with_other_data(part: DictConfig, name: str, root: str | None) -> DictConfig:
    """Puts the source of a data set in the place of its name, as in `anomaly.other=digits`, or of its file.

    Raises:
        UserError: for a name that is neither of a data set nor of a file.
    """
    other = part.get("other")
    if not isinstance(other, str):
        return part
    files = {file.stem: file for file in sorted((CONF / "data").glob("[!_]*.yaml")) if file.stem not in OWN_DATA}
    if other in files:
        data = OmegaConf.load(files[other])
        if root is not None and "root" in data:
            data.root = root
        source = OmegaConf.create({"data": data}).data.source
    elif Path(other).expanduser().is_file():
        source = OmegaConf.create({"_target_": "vaelab.data.sources.Arrays", "path": other})
    else:
        raise UserError(f"{name}.other must be one of {', '.join(files)}, or a file of images, but is {other!r}")
    return OmegaConf.merge(part, {"other": OmegaConf.to_container(source, resolve=True)})  # type: ignore[return-value]


def directories(pattern: str) -> list[Path]:
    """Returns the run directories that a path or a glob pattern names.

    Raises:
        UserError: if there is none.
    """
    paths = [Path(p) for p in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
    runs = [path for path in paths if path.is_file() or (path / BEST.parent).is_dir()]
    if not runs:
        raise UserError(f"run={pattern} names no run directory; give one, or a pattern such as 'run=outputs/*/*'")
    return runs


def evaluate_run(directory: Path, parts: dict[str, Evaluation], cfg: DictConfig) -> list[Figure]:
    """Evaluates one run; parts that were done before with the same settings are not done again."""
    file = find_checkpoint(directory, BEST.name)
    folder = directory if directory.is_dir() else directory.parent
    results, values = stored_results(folder / RESULTS), stored_values(folder / VALUES)
    subject = subject_of(file, folder, cfg)
    figures: list[Figure] = []
    for name, part in parts.items():
        settings = {
            "options": OmegaConf.to_container(cfg[name], resolve=True),
            **{key: cfg[key] for key in ("split", "limit", "seed")},
            "checkpoint": checksum(file),
        }
        stored = results.get(name)
        if stored is None or stored["settings"] != settings or cfg.again:
            start = time.perf_counter()
            with seeded(cfg.seed, subject.model.device):
                try:
                    measured = part(subject)
                except ValueError as error:
                    raise UserError(f"{name}: {error}") from error
            measured = [with_protocol(figure, subject) for figure in measured]
            stored = {
                "settings": settings,
                "seconds": round(time.perf_counter() - start, 3),
                "figures": [plain(figure) for figure in measured],
            }
            values |= {figure.name: figure.values.numpy() for figure in measured if figure.values is not None}
            save_values(folder / VALUES, values)
            results[name] = stored
            write_json(folder / RESULTS, results)  # after every part: what is done stays done
        figures += [with_values(Figure(**figure), values) for figure in stored["figures"]]
    print_figures(folder, figures)
    to_tensorboard(file, folder, figures)
    return figures


def stored_results(file: Path) -> dict[str, Any]:
    """Returns what was measured before, by part.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); delete it to measure everything anew") from error
    return found


def subject_of(file: Path, folder: Path, cfg: DictConfig) -> Subject:
    """Loads a run's model and its data, as the run had them."""
    stored = folder / HYDRA_CONFIG
    if not stored.is_file():
        raise UserError(f"{folder} does not say what data it was trained on ({HYDRA_CONFIG} is missing)")
    config = OmegaConf.load(stored)
    assert isinstance(config, DictConfig)
    if cfg.data_root is not None:
        if "root" not in config.data:
            raise UserError(f"data_root={cfg.data_root}: the data of {folder} has no root; leave it out")
        config.data.root = cfg.data_root
    data: ImageDataModule = build(config.data, "data")
    try:
        data.setup()
    except ValueError as error:
        raise UserError(f"data: {error}") from error
    splits = dict(data.splits)
    if data.binarize == "dynamic":
        splits["train"] = splits["train"].binarized("static", seed=data.split_seed)
    protocol = {"split": cfg.split, "binarize": data.binarize}
    model = load(file, device=device_of(cfg.device))
    if cfg.compile:
        model.compile_scoring()
    return Subject(
        model=model,
        splits=splits,
        split=cfg.split,
        limit=cfg.limit,
        support=data.support,
        protocol=protocol,
        folder=folder,
        seed=cfg.seed,
        progress=bar,
    )


def device_of(name: str) -> torch.device:
    """Returns the device called `name`; auto takes an accelerator if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} is not there; device=auto takes what this machine has") from error


def checksum(file: Path) -> str:
    """Returns what changes when a checkpoint is written anew."""
    stat = file.stat()
    return f"{file.name} {stat.st_size} {int(stat.st_mtime)}"


def stored_values(file: Path) -> dict[str, np.ndarray]:
    """Returns the values of every image that were stored before, by figure; none from a file that cannot be read."""
    try:
        with np.load(file) as found:
            return dict(found)
    except (OSError, ValueError, BadZipFile):
        return {}


def save_values(file: Path, values: dict[str, np.ndarray]) -> None:
    """Writes the values of every image; what was there stays until the new file is whole."""
    draft = file.with_suffix(".part.npz")
    np.savez_compressed(draft, **values)  # type: ignore[arg-type]
    draft.replace(file)


def with_protocol(figure: Figure, subject: Subject) -> Figure:
    """Adds to a figure what all of them depend on."""
    data = zlib.crc32(subject.images()[0].cpu().numpy().tobytes())
    return replace(figure, protocol={**subject.protocol, **figure.protocol}, data=data)


def plain(figure: Figure) -> dict[str, Any]:
    """Returns a figure as it is stored, without the values of the images."""
    return {key: value for key, value in asdict(figure).items() if key != "values"}


def with_values(figure: Figure, values: dict[str, np.ndarray]) -> Figure:
    """Adds the stored values of the images to a figure, if they belong to it."""
    found = values.get(figure.name)
    if figure.value is None or found is None or not math.isclose(found.mean(), figure.value, rel_tol=1e-9):
        return figure
    return replace(figure, values=torch.from_numpy(found))


def bar(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterates with a progress bar that leaves nothing behind; silently where nobody watches."""
    return iter(tqdm(items, desc=description, total=total, leave=False, dynamic_ncols=True, disable=None))


def print_figures(folder: Path, figures: list[Figure]) -> None:
    """Prints the figures of a run part by part; above each what all of its figures share, below it what to know."""
    console = Console(highlight=False, markup=False)
    console.print(str(folder), style="bold", soft_wrap=True)
    for part, members in groupby(figures, key=heading):
        group = list(members)
        measured = [figure for figure in group if figure.value is not None]
        shared = [item for item in described(measured[:1]) if all(item in described([f]) for f in measured)]
        console.print(f"{part}  {', '.join(shared)}".rstrip(), style="bold")
        table = Table(box=None, pad_edge=False, show_header=False)
        for column in ("figure", "value", "error", "unit", "protocol"):
            justify: Literal["left", "right"] = "right" if column in ("value", "error") else "left"
            table.add_column(justify=justify, overflow="fold", no_wrap=column == "figure")
        for figure in measured:
            own = ", ".join(item for item in described([figure]) if item not in shared)
            error = "" if figure.error is None else f"± {figure.error:.2g}"
            table.add_row(f"  {figure.name.removeprefix(part + '/')}", f"{figure.value:.5g}", error, figure.unit, own)
        console.print(table)
        for note in dict.fromkeys(figure.note for figure in group if figure.note):
            names = ", ".join(figure.name.removeprefix(f"{part}/") for figure in group if figure.note == note)
            console.print(f"  {names}: {note}", soft_wrap=True)
    console.print(f"written  {folder / RESULTS}", soft_wrap=True)


def heading(figure: Figure) -> str:
    """Returns under what a figure is printed: its part of the evaluation, and the kind within it if there are many."""
    names = figure.name.split("/")
    return "/".join(names[: 2 if len(names) > 3 else 1])


def difference(figure: Figure, other: Figure) -> tuple[float, float] | None:
    """Returns the mean difference figure - other and its standard error; None unless both are of the same images.

    What makes an image easy or hard for all models drops out: the error is that of the paired differences.
    """
    if figure.values is None or other.values is None:
        return None
    if (figure.protocol, figure.data) != (other.protocol, other.data):
        return None
    differences = figure.values - other.values
    return differences.mean().item(), (differences.std() / math.sqrt(len(differences))).item()


def print_differences(found: dict[str, list[Figure]]) -> None:
    """Prints by how much runs fall behind the best of them, image by image; nothing where they cannot be compared."""
    console = Console(highlight=False, markup=False)
    for name in COMPARED:
        measured = [
            (f.value, run, f) for run, fs in found.items() for f in fs if f.name == name and f.value is not None
        ]
        if len(measured) < 2:
            continue
        (value, best, winner), *others = sorted(measured, key=lambda item: -item[0])
        pairs = [(run, difference(figure, winner)) for _, run, figure in others]
        if not any(pair for _, pair in pairs):
            continue
        console.print(f"{name}  best first, differences over the same {winner.protocol['images']} images", style="bold")
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row(f"  {best}", f"{value:.2f}")
        for run, pair in pairs:
            table.add_row(f"  {run}", f"{pair[0]:+.3f} ± {pair[1]:.2g}" if pair else "measured otherwise")
        console.print(table)


def described(figures: Iterable[Figure]) -> list[str]:
    """Returns the protocols of figures in words: `split test`, `k 5000`."""
    return [f"{key} {value}" for figure in figures for key, value in figure.protocol.items()]


def to_tensorboard(file: Path, folder: Path, figures: list[Figure]) -> None:
    """Shows the figures in the HPARAMS view of a run that has one."""
    logs = folder / "tensorboard"
    if not logs.is_dir():
        return
    config = OmegaConf.create(read_checkpoint(file)["vaelab"]["config"])
    assert isinstance(config, DictConfig)
    logger = TensorBoardLogger(save_dir=str(folder), name="tensorboard", version="")
    values = {f"evaluation/{figure.name}": figure.value for figure in figures if figure.value is not None}
    logger.log_hyperparams(flat(config), values)
    logger.finalize("success")
