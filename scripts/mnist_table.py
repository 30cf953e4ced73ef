"""Trains the README's methods on MNIST and prints its table; run again, it goes on where it stopped.

    python scripts/mnist_table.py                     # all rows, one after the other (two hours on two cores)
    python scripts/mnist_table.py --only vae iwae     # some of them
    python scripts/mnist_table.py --table             # prints the table of what is finished

Protocol of every row: 55,000 training images, the best of the epochs on 5,000 validation images, the official 10,000
test images once, seed 0. Binarised rows draw the training images anew at every epoch and the test images once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BINARY = ("data.binarize=dynamic",)


@dataclass(frozen=True)
class Row:
    """A run of the table."""

    name: str
    epochs: int
    overrides: tuple[str, ...] = BINARY
    figure: str = "test/elbo"
    needs: str | None = None  # a row whose run this one starts from
    note: str = ""

    def arguments(self, folder: Path) -> list[str]:
        words = [o.format(folder=folder) for o in self.overrides]
        return [*words, f"trainer.max_epochs={self.epochs}"]


ROWS = (
    Row("vae", 30, ("method=vae", *BINARY)),
    Row("beta_vae", 30, ("method=beta_vae", *BINARY), note="beta = 4"),
    Row("beta_tc_vae", 30, ("method=beta_tc_vae", *BINARY), note="beta = 6"),
    Row("vampprior", 30, ("method=vampprior", *BINARY), note="500 pseudo-inputs"),
    Row("cvae", 30, ("method=cvae", *BINARY), note="bound on log p(x given label)"),
    Row("dae", 30, ("method=dae", *BINARY), figure="test/reconstruction", note="reconstruction alone, no bound"),
    Row("iwae", 8, ("method=iwae", "objective.num_samples=50", *BINARY), figure="test/iwae", note="K = 50, also at test"),
    Row("ladder_vae", 30, ("method=ladder_vae", *BINARY)),
    Row("vq_pixelcnn", 10, ("method=vq_pixelcnn", *BINARY)),
    Row("pixel_vae", 5, ("method=pixel_vae", *BINARY)),
    Row("vae_gan", 10, ("method=vae_gan",), figure="test/reconstruction", note="grey images, optimises similarity"),
    Row("m2", 30, ("method=m2", "data.labels=100", *BINARY), figure="test/accuracy", note="100 labels"),
)


@dataclass
class Finished:
    """A row's figures."""

    row: Row
    metrics: dict[str, float] = field(default_factory=dict)


def run(row: Row, folder: Path, extra: list[str]) -> None:
    """Starts, continues or skips a row."""
    directory = folder / row.name
    if (directory / "metrics.json").is_file():
        print(f"{row.name}: finished")
        return
    unfinished = (directory / "checkpoints" / "last.ckpt").is_file()
    words = [f"resume={directory}"] if unfinished else [*row.arguments(folder), *extra, f"hydra.run.dir={directory}"]
    print(f"{row.name}: python train.py {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=ROOT, check=False)
    if done.returncode in (130, 143):
        raise SystemExit(f"stopped; run the script again to go on with {row.name}")
    if done.returncode:
        print(f"{row.name} failed with exit code {done.returncode}; going on", file=sys.stderr)


def table(folder: Path) -> str:
    """Returns the Markdown table of the finished rows."""
    lines = ["| method | test figure | test ELBO = reconstruction - KL | epochs | minutes |", "|---|---|---|---|---|"]
    for row in ROWS:
        file = folder / row.name / "metrics.json"
        if not file.is_file():
            continue
        m = json.loads(file.read_text())
        parts = f"{m['test/elbo']:.2f} = {m['test/reconstruction']:.2f} - {m['test/kl']:.2f}"
        note = f" ({row.note})" if row.note else ""
        lines.append(
            f"| `{row.name}`{note} | {row.figure.removeprefix('test/')} {m[row.figure]:.4g} | {parts} | {m['epochs']:.0f} "
            f"| {m['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], help="the rows to run")
    parser.add_argument("--folder", type=Path, default=Path("outputs/mnist_table"), help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="print the table of what is finished, and run nothing")
    parser.add_argument("extra", nargs="*", help="further overrides for every run, such as data.root=DIR")
    arguments = parser.parse_args()
    if not arguments.table:
        for row in ROWS:
            if not arguments.only or row.name in arguments.only:
                run(row, arguments.folder.resolve(), arguments.extra)
    print(table(arguments.folder.resolve()))


if __name__ == "__main__":
    main()
