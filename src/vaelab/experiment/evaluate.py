"""One command that judges finished runs: figures with standard errors and protocol, kept beside the run."""

from __future__ import annotations

import glob
import math
import os
import sys
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from vaelab.data import ImageDataModule
from vaelab.errors import UserError
from vaelab.evaluation import Evaluation, Figure, Subject
from vaelab.experiment.files import BEST, stored_config
from vaelab.experiment.instantiate import build
from vaelab.experiment.load import find_checkpoint, load, read_checkpoint
from vaelab.experiment.report import to_hparams
from vaelab.experiment.results import RESULTS, Results, Unfinished
from vaelab.locations import CONF
from vaelab.numerics import seeded

COMPARED = ("likelihood/elbo", "likelihood/bound")
OWN_DATA = ("arrays", "image_folder", "latents")  # data sets that are nothing without a place
SPLITS = ("train", "val", "test")
UNPAIRED = "measured of other images, or otherwise; again=true measures anew"
SHARES = ("/auroc", "/average_precision")
MANY = 3  # kinds, above which their scores are printed as a table
Item = TypeVar("Item")


def evaluate(cfg: DictConfig) -> dict[str, list[Figure]]:
    """Evaluates the runs that `cfg.run` names, writes `evaluation.json` into each and prints a table.

    Returns:
        The figures of every run directory.

    Raises:
        UserError: if there is no such run, or the configuration makes no sense.
    """
    check_toplevel(cfg)
    parts = chosen(cfg)
    found: dict[str, list[Figure]] = {}
    runs, refused = directories(list(cfg.run) if isinstance(cfg.run, ListConfig | list) else [cfg.run]), []
    for directory in runs:
        try:
            found[str(directory)], reasons = evaluate_run(directory, parts, cfg)
        except UserError as error:
            reasons = [str(error)]
        if reasons and len(runs) == 1:
            raise UserError("; ".join(reasons))
        if reasons:
            refused.append(str(directory))
            print(f"{directory}: {'; '.join(reasons)}", file=sys.stderr)  # the others go on
    print_differences(found)
    if refused:
        raise UserError(f"{len(refused)} of {len(runs)} runs could not be evaluated: {', '.join(refused)}")
    return found


def check_toplevel(cfg: DictConfig) -> None:
    """Checks the entries that belong to no part.

    Raises:
        UserError: for one that is not allowed.
    """
    named = cfg.run if isinstance(cfg.run, ListConfig | list) else [cfg.run]
    if not named or any(isinstance(run, bool) or not isinstance(run, str | int) for run in named):
        raise UserError(f"run must be a run directory, a pattern of several, or a list of those, but is {cfg.run!r}")
    if cfg.split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, but is {cfg.split!r}")
    if cfg.limit is not None and (isinstance(cfg.limit, bool) or not isinstance(cfg.limit, int) or cfg.limit < 2):
        raise UserError(f"limit must be null or a whole number of at least 2 images, but is {cfg.limit!r}")
    if isinstance(cfg.seed, bool) or not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**31:
        raise UserError(f"seed must be a whole number from 0 to 2^31 - 1, but is {cfg.seed!r}")
    for name in ("compile", "again"):
        if not isinstance(cfg[name], bool):
            raise UserError(f"{name} must be true or false, but is {cfg[name]!r}")
    if not isinstance(cfg.device, str):
        raise UserError(f"device must be auto, cpu, cuda, cuda:1 or mps, but is {cfg.device!r}")


def chosen(cfg: DictConfig) -> dict[str, Evaluation]:
    """Returns the parts of the evaluation that `cfg.parts` names.

    Raises:
        UserError: for a part that does not exist, or an entry that it does not take.
    """
    known = [str(name) for name, node in cfg.items() if isinstance(node, DictConfig) and "_target_" in node]
    wanted = [cfg.parts] if isinstance(cfg.parts, str) else cfg.parts
    if not isinstance(wanted, ListConfig | list) or not wanted:
        raise UserError(f"parts must be some of {', '.join(known)}, in brackets, but is {cfg.parts!r}")
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
        raise UserError(
            f"{name}.other must be one of {', '.join(files)}, or a file of images, but {other!r} is neither"
        )
    return OmegaConf.merge(part, {"other": OmegaConf.to_container(source, resolve=True)})  # type: ignore[return-value]


def directories(patterns: Sequence[str]) -> list[Path]:
    """Returns the run directories and checkpoints that paths or glob patterns name, each once.

    Raises:
        UserError: if one of them names none.
    """
    found: dict[Path, None] = {}
    for pattern in map(str, patterns):
        paths = [Path(p) for p in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
        runs = [path for path in paths if path.suffix == BEST.suffix or (path / BEST.parent).is_dir()]
        if not runs:
            raise UserError(f"run={pattern} names no run directory; give one, or a pattern such as 'run=outputs/*/*'")
        found |= dict.fromkeys(runs)
    return list(found)


def evaluate_run(path: Path, parts: dict[str, Evaluation], cfg: DictConfig) -> tuple[list[Figure], list[str]]:
    """Evaluates one run; parts that were done before with the same settings are not done again.

    Returns:
        The figures, and for every part that refused the run its reason.
    """
    file, folder = find_checkpoint(path, BEST.name), folder_of(path)
    results, start = Results(folder), time.time()
    subject = subject_of(file, folder, cfg)
    data = zlib.crc32(subject.images()[0].cpu().numpy().tobytes())
    figures: list[Figure] = []
    refused: list[str] = []
    for name, part in parts.items():
        settings = {
            "options": OmegaConf.to_container(cfg[name], resolve=True),
            **{key: cfg[key] for key in ("split", "limit", "seed")},
            "checkpoint": checksum(file),
        }
        found = None if cfg.again else results.find(name, settings)
        if found is None:
            if not os.access(folder, os.W_OK):
                raise UserError(f"{folder} cannot be written to, and {RESULTS} belongs there; evaluate a copy of it")
            before = time.perf_counter()
            unfinished = Unfinished(folder, name, {**settings, "data": data, "again": cfg.again})
            try:
                with seeded(cfg.seed, subject.model.device):
                    measured = part(replace(subject, unfinished=unfinished))
            except ValueError as error:
                refused.append(f"{name}: {in_words_of_this_command(error)}")
                continue  # with the other parts
            except BaseException:
                unfinished.write()
                raise
            found = [replace(f, protocol={**subject.protocol, **f.protocol}, data=data) for f in measured]
            # After every part: what is done stays done.
            results.add(name, settings, round(time.perf_counter() - before, 3), found)
            unfinished.drop()
        figures += found
    if figures:
        print_figures(figures, f"{folder} ({file.name})" if file.name != BEST.name else str(folder))
        print_files(folder, since=start)
        to_tensorboard(file, folder, figures)
    return figures, refused


def folder_of(path: Path) -> Path:
    """Returns the directory of a run that is given by itself or by one of its checkpoints."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == BEST.parent.name else path.parent


def subject_of(file: Path, folder: Path, cfg: DictConfig) -> Subject:
    """Loads a run's model and its data, as the run had them."""
    config = stored_config(folder, "run")
    if cfg.data_root is not None and "root" in config.data:
        config.data.root = cfg.data_root
    elif cfg.data_root is not None and not isinstance(cfg.anomaly.other, str):  # whose root it may be
        raise UserError(f"data_root={cfg.data_root}: the data of {folder} has no root; leave it out")
    data: ImageDataModule = build(config.data, "data")
    try:
        data.setup()
    except ValueError as error:
        raise UserError(f"data: {in_words_of_this_command(error)}") from error
    splits = dict(data.splits)
    if data.binarize == "dynamic":
        splits["train"] = splits["train"].binarized("static", seed=data.split_seed)
    protocol = {"split": cfg.split, "binarize": data.binarize}
    for choice in ("only_classes", "without_classes"):  # of training images; the test set keeps all
        if config.data.get(choice) is not None:
            protocol[f"trained {choice.replace('_', ' ')}"] = " ".join(map(str, config.data[choice]))
    model = load(file, device=device_of(cfg.device))
    if cfg.compile:
        warnings.filterwarnings("ignore", module=r"torch\._(dynamo|inductor)\.")  # advice about the libraries' own code
        torch.compiler.reset()  # of the run before: a process compiles a function only so many times
        check_compiler(model.device)
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


def check_compiler(device: torch.device) -> None:
    """Compiles a sum, to see whether this machine can.

    Raises:
        UserError: if it cannot.
    """
    try:
        torch.compile(torch.add)(torch.ones(2, device=device), 1)
    except Exception as error:  # of any kind: torch, a compiler or the system may raise it
        words = str(error).strip() or type(error).__name__
        why = words.splitlines()[0].removeprefix("InvalidCxxCompiler: ").rstrip(".")
        raise UserError(
            f"compile=true needs a C++ compiler with Python's headers, but here: {why}; install one, or leave it out"
        ) from error


def device_of(name: str) -> torch.device:
    """Returns the device called `name`; auto takes an accelerator if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} is not there; device=auto takes what this machine has") from error


def in_words_of_this_command(error: ValueError) -> str:
    """Returns a message about data with the key that this command has for their place."""
    return str(error).replace("data.root=", "data_root=")


def checksum(file: Path) -> str:
    """Returns what changes when a checkpoint is written anew."""
    stat = file.stat()
    return f"{file.name} {stat.st_size} {int(stat.st_mtime)}"


def bar(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterates with a progress bar that leaves nothing behind; silently where nobody watches."""
    return iter(tqdm(items, desc=description, total=total, leave=False, dynamic_ncols=True, disable=None))


def print_files(folder: Path, *, since: float) -> None:
    """Prints which pictures and tables were drawn, and where the figures are."""
    console = Console(highlight=False, markup=False)
    drawn = sorted(file for pattern in ("*.png", "*.csv") for file in folder.glob(pattern))
    names = [file.name for file in drawn if file.stat().st_mtime >= since]
    if names:
        console.print(f"drawn    {', '.join(names)}", soft_wrap=True)
    console.print(f"written  {folder / RESULTS}", soft_wrap=True)


def print_figures(figures: list[Figure], title: str) -> None:
    """Prints the figures of a run part by part; above each what all of its figures share, below it what to know."""
    console = Console(highlight=False, markup=False)
    console.print(title, style="bold", soft_wrap=True)
    for part, members in groupby(figures, key=lambda figure: figure.name.split("/")[0]):
        group = list(members)
        measured = [figure for figure in group if figure.value is not None]
        grids: dict[str, list[Figure]] = {}  # what was measured of many kinds by the same scores, by its last name
        for figure in measured:
            if figure.name.count("/") == 3 and figure.name.endswith(SHARES):
                grids.setdefault(figure.name.rpartition("/")[2], []).append(figure)
        for name, cells in grids.items():
            kinds, scores = (len({cell.name.split("/")[i] for cell in cells}) for i in (1, 2))
            if kinds > MANY and scores > 1:
                print_grid(console, f"{part} {name}", cells)
                measured = [figure for figure in measured if figure not in cells]
        for head, rows in groupby(measured, key=heading):
            print_rows(console, head, list(rows))
        for note in dict.fromkeys(figure.note for figure in group if figure.note):
            names = ", ".join(figure.name.removeprefix(f"{part}/") for figure in group if figure.note == note)
            console.print(f"  {names}: {note}", soft_wrap=True)


def print_rows(console: Console, head: str, figures: list[Figure]) -> None:
    """Prints one figure a line, with what is not true of all of them behind it."""
    shared = in_common(figures)
    console.print(f"{head}  {', '.join(shared)}".rstrip(), style="bold")
    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("figure", "value", "error", "unit", "protocol"):
        justify: Literal["left", "right"] = "right" if column in ("value", "error") else "left"
        table.add_column(justify=justify, overflow="fold", no_wrap=column == "figure")
    for figure in figures:
        own = ", ".join(item for item in described(figure) if item not in shared)
        noise = figure.error is not None and figure.error < 1e-9 * abs(figure.value or 0)
        error = "" if figure.error is None else f"± {0 if noise else figure.error:.2g}"
        table.add_row(f"  {figure.name.removeprefix(head + '/')}", f"{figure.value:.5g}", error, figure.unit, own)
    console.print(table)


def print_grid(console: Console, head: str, cells: list[Figure]) -> None:
    """Prints shares PART/KIND/SCORE/... in per cent, with a line for every kind and a column for every score."""
    shared = in_common(cells)
    console.print(f"{head} in %  {', '.join(shared)}".rstrip(), style="bold")
    kinds, scores = (list(dict.fromkeys(cell.name.split("/")[i] for cell in cells)) for i in (1, 2))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    table.add_column("  ", no_wrap=True)
    for score in scores:
        table.add_column(score.replace("reconstruction", "reconstr.").replace("_", " "), justify="right")
    notes = []
    for kind in kinds:
        row = {cell.name.split("/")[2]: cell for cell in cells if cell.name.split("/")[1] == kind}
        repeated = (f"anomalies {kind}", f"anomalies {kind.replace('_', ' ')}")
        own = [item for item in in_common(list(row.values())) if item not in (*shared, *repeated)]
        table.add_row(f"  {kind}", *(in_percent(row.get(score)) for score in scores))
        notes += [f"  {kind}: {', '.join(own)}"] if own else []
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)


def in_percent(figure: Figure | None) -> str:
    """Returns value and error of a share in per cent."""
    if figure is None:
        return ""
    return f"{100 * (figure.value or 0):.1f}" + ("" if figure.error is None else f" ± {100 * figure.error:.1f}")


def in_common(figures: list[Figure]) -> list[str]:
    """Returns what of the protocols is true of all figures."""
    return [item for item in described(figures[0]) if all(item in described(figure) for figure in figures)]


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
        console.print(f"{name}  best first, differences over the same {winner.protocol['images']} images", style="bold")
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_row(f"  {best}", f"{value:.2f}")
        for run, pair in pairs:
            table.add_row(
                f"  {run}",
                f"{pair[0]:+.3f} ± {pair[1]:.2g}" if pair else UNPAIRED,
            )
        console.print(table)


def described(figure: Figure) -> list[str]:
    """Returns the protocol of a figure in words: `split test`, `k 5000`."""
    return [f"{key} {value}" for key, value in figure.protocol.items()]


def to_tensorboard(file: Path, folder: Path, figures: list[Figure]) -> None:
    """Shows the figures in the HPARAMS view of a run that has one."""
    logs = folder / "tensorboard"
    if not logs.is_dir():
        return
    config = OmegaConf.create(read_checkpoint(file)["vaelab"]["config"])
    assert isinstance(config, DictConfig)
    logger = TensorBoardLogger(save_dir=str(folder), name="tensorboard", version="")
    values = {f"evaluation/{figure.name}": figure.value for figure in figures if figure.value is not None}
    to_hparams(logger, config, values)
    logger.finalize("success")
