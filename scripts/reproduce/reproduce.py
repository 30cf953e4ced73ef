"""Repeats a published table: trains its runs, evaluates them and writes docs/results/TABLE.md.

    python scripts/reproduce/reproduce.py probes                         # a small one, minutes
    python scripts/reproduce/reproduce.py iwae scale=paper               # the paper's sizes and length: days
    python scripts/reproduce/reproduce.py iwae --only vae_1,iwae_5       # some of the runs
    python scripts/reproduce/reproduce.py iwae --table                   # trains nothing, writes what is finished
    python scripts/reproduce/reproduce.py vampprior data.root=DIR        # further overrides for every run

Started again, it skips finished runs and continues unfinished ones; what was evaluated with the same settings is not
evaluated again. Runs lie in outputs/reproduce/TABLE/SCALE/RUN. A run that was not trained has an empty cell.

A table is a YAML file beside this one:

    title, source, note       what is repeated, whose it is, and what to know about it
    protocol                  of the published figures; a row may have its own
    train, evaluate           overrides of train.py and evaluate.py for every run
    scales                    small and paper: {train, evaluate}, added for every run
    runs                      NAME: {train, evaluate, small, paper}; small and paper add to train. {folder} is where
                              the other runs lie, for refit={folder}/NAME and init_from={folder}/NAME; their processor
                              time is added to that of the run
    differences               figure, runs: pairs of runs whose figures are compared image by image
    rows                      name; run, or runs to average (default: the name); figure of evaluation.json or
                              metrics.json; times and plus turn it into what was published; published: a number, or
                              [lowest, highest]; of: number of images a share is of, for its binomial standard error
    row                       what all rows share

The small scale is the same comparison with fewer epochs or images: its differences are no verdict on the method.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from vaelab.evaluation import Figure

ROOT = Path(__file__).resolve().parents[2]
TABLES = Path(__file__).resolve().parent
SCALES = ("small", "paper")
# Overrides that change no figure: where data lie and what is shown. The first two are not written into the results.
PLACES = ("data.root", "data.path")
NEUTRAL = (*PLACES, "data.device", "callbacks", "logger")
RECORD = "reproduce.json"


@dataclass(frozen=True)
class Run:
    """A training run: overrides of train.py, common ones and those of each scale, and of evaluate.py."""

    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    paper: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A published figure and how it is measured here: `times` x figure + `plus`, averaged over `runs`."""

    name: str
    figure: str
    run: str = ""
    runs: tuple[str, ...] = ()
    times: float = 1.0
    plus: float = 0.0
    of: int | None = None
    published: float | tuple[float, float] | None = None
    protocol: str = ""
    decimals: int = 2

    @property
    def sources(self) -> tuple[str, ...]:
        return self.runs or (self.run or self.name,)


@dataclass(frozen=True)
class Table:
    """A published table."""

    name: str
    title: str
    source: str
    runs: dict[str, Run]
    rows: tuple[Row, ...]
    scales: dict[str, Run]
    protocol: str = ""
    note: str = ""
    differences: dict[str, Any] = field(default_factory=dict)
    train: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()

    def training(self, run: str, scale: str, folder: Path, extra: Sequence[str] = ()) -> list[str]:
        """Returns the overrides of train.py for a run."""
        own = self.runs[run]
        words = [*self.train, *own.train, *self.scales[scale].train, *getattr(own, scale)]
        if any(key(word) == "data.run" for word in words):  # latents know where their images lie
            extra = [word for word in extra if key(word) not in PLACES]
        return [word.replace("{folder}", str(folder)) for word in (*words, *extra)]

    def before(self, run: str, scale: str) -> list[str]:
        """Returns the runs that a run starts from, the nearest first."""
        words = self.training(run, scale, Path("{folder}"))
        found = [word.rpartition("/")[2] for word in words if "{folder}/" in word]
        return list(dict.fromkeys(name for nearest in found for name in (nearest, *self.before(nearest, scale))))

    def evaluation(self, run: str, scale: str, folder: Path) -> list[str]:
        """Returns the overrides of evaluate.py for a run."""
        words = [*self.evaluate, *self.runs[run].evaluate, *self.scales[scale].evaluate]
        return [word.replace("{folder}", str(folder)) for word in words]


@dataclass(frozen=True)
class Measured:
    """A figure of a finished run, in the published unit."""

    value: float
    error: float | None = None
    protocol: dict[str, object] = field(default_factory=dict)
    figure: Figure | None = None


def names() -> list[str]:
    """Returns the tables that there are."""
    return sorted(file.stem for file in TABLES.glob("*.yaml"))


def read_table(name: str) -> Table:
    """Reads a table; an entry that it does not know is an error."""
    raw = OmegaConf.to_container(OmegaConf.load(TABLES / f"{name}.yaml"))
    assert isinstance(raw, dict)
    raw["runs"] = {key: Run(**frozen(value or {})) for key, value in raw["runs"].items()}
    raw["scales"] = {scale: Run(**frozen(raw["scales"][scale] or {})) for scale in SCALES}
    shared = raw.pop("row", {})
    raw["rows"] = tuple(Row(**frozen({**shared, **row})) for row in raw["rows"])
    table = Table(name=name, **frozen(raw))
    if unknown := {source for row in table.rows for source in row.sources} - set(table.runs):
        raise ValueError(f"{name}.yaml: rows need runs that are not there: {', '.join(sorted(unknown))}")
    return table


def frozen(entries: dict) -> dict:
    """Returns the entries with tuples in the place of lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entries.items()}


# ---- training


def train(table: Table, run: str, scale: str, folder: Path, extra: list[str]) -> None:
    """Starts, continues or skips a run."""
    directory, words = folder / run, table.training(run, scale, folder, extra)
    check_same(directory, words)
    if (directory / "metrics.json").is_file():
        print(f"{run}: finished")
        return
    if (directory / "checkpoints" / "last.ckpt").is_file():
        words = [f"resume={directory}", *(word for word in words if key(word) in PLACES)]
    else:
        words = ["callbacks=quiet", *words, f"hydra.run.dir={directory}"]
    print(f"{run}: python train.py {' '.join(words)}", flush=True)
    before, spent = children_seconds(), read_json(directory / RECORD).get("cpu_seconds", 0)
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=ROOT, check=False)
    if directory.is_dir():
        record(directory, spent + children_seconds() - before)
    if done.returncode in (130, 143):
        raise SystemExit(f"stopped; start it again to go on with {run}")
    if done.returncode:
        print(f"{run} failed with exit code {done.returncode}; going on", file=sys.stderr)


def check_same(directory: Path, words: Sequence[str]) -> None:
    """Raises an error if a run was started with overrides that make another figure."""
    file = directory / "overrides.yaml"
    if not file.is_file():
        return
    stored = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(stored, list)
    # A resumed run has the same key twice; the last one counts.
    before, wanted = ({key(word): word for word in some if key(word) not in NEUTRAL} for some in (stored, words))
    if before != wanted:
        was, now = (" ".join(sorted(some.values())) for some in (before, wanted))
        raise SystemExit(f"{directory} was trained with {was}, but now is wanted {now}; move it away")


def key(word: str) -> str:
    """Returns what an override sets."""
    return word.lstrip("+~").partition("=")[0]


def record(directory: Path, seconds: float | None) -> None:
    """Notes the processor time of a run, all of its parts together, and the machine it ran on."""
    content = {"cpu_seconds": None if seconds is None else round(seconds), "machine": machine()}
    (directory / RECORD).write_text(json.dumps(content, indent=2) + "\n")


def spent_minutes(directory: Path) -> str:
    """Returns the recorded processor time of a run in minutes, or a question mark."""
    seconds = read_json(directory / RECORD).get("cpu_seconds")
    return "?" if seconds is None else f"{seconds / 60:.1f}"


def machine() -> str:
    """Returns the processor of this machine in words."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = os.environ.get("OMP_NUM_THREADS")
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores" + (f" ({threads} used by a run)" if threads else "")


def children_seconds() -> float:
    """Returns the processor time of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# ---- measuring


def measure(table: Table, run: str, scale: str, folder: Path, extra: list[str]) -> dict[str, Measured]:
    """Returns the figures of a run, by name; none for a run that is not finished."""
    directory = folder / run
    metrics = read_json(directory / "metrics.json")
    if not metrics:
        return {}
    check_same(directory, table.training(run, scale, folder, extra))
    shared: dict[str, object] = {"epochs": int(metrics["epochs"])}
    if before := table.before(run, scale):
        shared["after"] = " ".join(before)
    file = directory / "config.yaml"
    binarize = OmegaConf.select(OmegaConf.load(file), "data.binarize") if file.is_file() else None
    own = shared if binarize is None else {"binarize": binarize, **shared}
    found = {name: Measured(value, None, {"split": name.partition("/")[0], **own}) for name, value in metrics.items()}
    words = table.evaluation(run, scale, folder)
    if words:
        from vaelab.errors import UserError
        from vaelab.evaluate import evaluate

        places = [f"data_root={word.partition('=')[2]}" for word in extra if key(word) == "data.root"]
        try:
            figures = evaluate(directory, *words, *places)[str(directory)]
        except UserError as error:
            raise SystemExit(f"{error}; no page was written") from error
        for figure in figures:
            if figure.value is not None:
                found[figure.name] = Measured(figure.value, figure.error, {**shared, **figure.protocol}, figure)
    return found


def result(row: Row, measured: dict[str, dict[str, Measured]]) -> Measured | None:
    """Returns the figure of a row, or None unless all of its runs have it."""
    found = [converted(row, measured.get(run, {}).get(row.figure)) for run in row.sources]
    complete = [m for m in found if m is not None]
    if len(complete) < len(found):
        return None
    if len(complete) == 1:
        return complete[0]
    values = [m.value for m in complete]
    first = complete[0].protocol
    same = {k: v for k, v in first.items() if all(m.protocol.get(k) == v for m in complete)}
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Measured(statistics.fmean(values), error, {**same, "error": f"over {len(values)} runs"})


def converted(row: Row, measured: Measured | None) -> Measured | None:
    """Returns a figure in the published unit."""
    if measured is None:
        return None
    error = measured.error
    if error is None and row.of:
        error = math.sqrt(measured.value * (1 - measured.value) / row.of)
    return Measured(
        row.times * measured.value + row.plus,
        None if error is None else abs(row.times) * error,
        {**measured.protocol, "images": row.of} if row.of else measured.protocol,
    )


def difference(row: Row, value: float) -> str:
    """Returns ours minus the published figure; for a range, the distance to its nearest end."""
    if row.published is None:
        return ""
    lowest, highest = row.published if isinstance(row.published, tuple) else (row.published, row.published)
    if lowest <= value <= highest and lowest < highest:
        return "within"
    return f"{value - min(max(value, lowest), highest):+.{row.decimals}f}"


# ---- writing


def markdown(table: Table, scale: str, folder: Path, measured: dict[str, dict[str, Measured]], extra: list[str]) -> str:
    """Returns the page of a table."""
    lines = [f"# {table.title}", "", f"Published: {table.source}. Scale of the runs here: **{scale}**.", ""]
    if table.note:
        lines += [table.note.strip(), ""]
    lines += ["| run | published | ours ± s.e. | difference | protocol |", "|---|---|---|---|---|"]
    for row in table.rows:
        ours = result(row, measured)
        cells = [row.name, published(row), "", "", protocol(table, row, ours)]
        if ours is not None:
            error = "" if ours.error is None else f" ± {ours.error:.{row.decimals}f}"
            cells[2:4] = [f"{ours.value:.{row.decimals}f}{error}", difference(row, ours.value)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += compared(table, measured)
    lines += ["", "An empty cell was not measured, or has no published figure. Difference: ours - published.", ""]
    shown = [word for word in extra if key(word) not in PLACES]
    command = ["python scripts/reproduce/reproduce.py", table.name, f"scale={scale}", *shown]
    lines += ["```bash", " ".join(command), "```", ""]
    return "\n".join([*lines, *provenance(table, scale, folder, measured)]) + "\n"


def compared(table: Table, measured: dict[str, dict[str, Measured]]) -> list[str]:
    """Returns the differences between runs that were measured on the same images, with their own standard errors."""
    from vaelab.experiment.evaluate import difference

    name, lines = table.differences.get("figure", ""), []
    for one, other in table.differences.get("runs", ()):
        figures = [measured.get(run, {}).get(name, Measured(0.0)).figure for run in (one, other)]
        pair = difference(*figures) if all(figures) else None
        if pair:
            lines.append(f"- `{name}` of {one} - {other}: {pair[0]:+.3f} ± {pair[1]:.3f}")
    return (
        ["", "Differences image by image, in which what makes an image hard for all drops out:", "", *lines]
        if lines
        else []
    )


def published(row: Row) -> str:
    """Returns a published figure, or a range of them, as it is printed."""
    if row.published is None:
        return ""
    ends = row.published if isinstance(row.published, tuple) else (row.published,)
    return " to ".join(f"{end:g}" for end in ends)


def protocol(table: Table, row: Row, ours: Measured | None) -> str:
    """Returns the protocols of the published figure and of ours."""
    theirs = row.protocol or table.protocol
    parts = [f"published: {theirs}"] if theirs and row.published is not None else []
    if ours is not None:
        parts.append("ours: " + ", ".join(f"{name} {value}" for name, value in ours.protocol.items()))
    return "; ".join(parts)


def provenance(table: Table, scale: str, folder: Path, measured: dict[str, dict[str, Measured]]) -> list[str]:
    """Returns by what overrides, how long, where and by which versions the finished runs were trained."""
    finished = [run for run in table.runs if measured.get(run)]
    if not finished:
        return ["Nothing was measured yet."]
    home = Path("outputs/reproduce", table.name, scale)  # where runs lie unless said otherwise
    lines = ["| run | `train.py` | CPU minutes |", "|---|---|---|"]
    for run in finished:
        words = " ".join(table.training(run, scale, home))
        minutes = " + ".join(spent_minutes(folder / name) for name in [run, *table.before(run, scale)])
        lines.append(f"| {run} | `{words}` | {minutes} |")
    evaluated = [" ".join(table.evaluation(run, scale, home)) for run in finished]
    lines += [line for words in distinct(evaluated) for line in ("", f"Evaluated by `evaluate.py {words}`.")]
    versions = [read_json(folder / run / "versions.json") for run in finished]
    machines = [read_json(folder / run / RECORD).get("machine") for run in finished]
    programs = [
        ", ".join(f"{k} {x}" for k, x in v.items() if k not in ("platform", "device", "seed")) for v in versions
    ]
    facts = {
        "Hardware": machines,
        "Device": [v.get("device") for v in versions],
        "Seed": [v.get("seed") for v in versions],
        "Versions": programs,
    }
    said = [f"- {what}: {'; '.join(distinct(values))}" for what, values in facts.items() if distinct(values)]
    return [*lines, "", *said]


def distinct(values: Iterable[object]) -> list[str]:
    """Returns what is known, every value once."""
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def read_json(file: Path) -> dict:
    """Returns what a file holds; nothing if there is none."""
    return json.loads(file.read_text()) if file.is_file() else {}


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=names())
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="scale=small|paper, and overrides for every run")
    parser.add_argument("--only", help="the runs to train, separated by commas; the table shows all finished ones")
    parser.add_argument("--table", dest="table_only", action="store_true", help="train nothing")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "reproduce", help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", help="where tables are written")
    arguments = parser.parse_intermixed_args()
    scale = next((word.partition("=")[2] for word in arguments.words if key(word) == "scale"), "small")
    if scale not in SCALES:
        parser.error(f"scale must be one of {', '.join(SCALES)}, but is {scale!r}")
    extra = [word for word in arguments.words if key(word) != "scale"]
    table = read_table(arguments.table)
    only = arguments.only.split(",") if arguments.only else list(table.runs)
    if unknown := set(only) - set(table.runs):
        parser.error(f"there is no run {', '.join(sorted(unknown))}; choose from {', '.join(table.runs)}")
    folder = arguments.folder.resolve() / table.name / scale
    if not arguments.table_only:
        for run in table.runs:
            if run in only:
                train(table, run, scale, folder, extra)
    measured = {run: measure(table, run, scale, folder, extra) for run in table.runs}
    page = arguments.results / f"{table.name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(markdown(table, scale, folder, measured, extra))
    print(f"written  {page}")


if __name__ == "__main__":
    main()
