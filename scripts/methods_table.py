"""Trains the methods and prints the README's tables; run again, it goes on where it stopped.

    python scripts/methods_table.py digits            # every method=NAME on the small digits, minutes
    python scripts/methods_table.py mnist             # the chosen ones on MNIST, two hours on two cores
    python scripts/methods_table.py mnist --only vae,iwae data.root=DIR
    python scripts/methods_table.py mnist --table     # prints the table of what is finished

Protocol of every row: the best of the epochs on the validation images (MNIST: 5,000 of the official training images),
the test images once, seed 0. Binarised rows draw the training images anew at every epoch and the test images once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BINARY = ("data.binarize=dynamic",)
SMALL_CONV = ("model.encoder.channels=[16,32]", "model.decoder.channels=[16,32]")


@dataclass(frozen=True)
class Row:
    """A run of the table."""

    name: str
    epochs: int
    overrides: tuple[str, ...] = BINARY
    figure: str = "test/elbo"
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
    Row(
        "iwae", 8, ("method=iwae", "objective.num_samples=50", *BINARY), figure="test/iwae", note="K = 50, also at test"
    ),
    Row("ladder_vae", 30, ("method=ladder_vae", *BINARY)),
    Row(
        "vq_pixelcnn", 6, ("method=vq_pixelcnn", "model.sampler.num_codes=128", *SMALL_CONV, *BINARY), note="128 codes"
    ),
    Row("pixel_vae", 1, ("method=pixel_vae", "model.decoder.inner.channels=[16,32]", *BINARY)),
    Row("vae_gan", 1, ("method=vae_gan", *SMALL_CONV), figure="test/reconstruction", note="grey, judged by features"),
    Row("m2", 12, ("method=m2", *BINARY), figure="test/accuracy", note="100 labels"),
)


def digits_rows() -> list[Row]:
    """Every preset, with its defaults."""
    rows = []
    for name, _ in heads():
        data = ("data=latents", "data.run={folder}/m1") if name == "m1_m2" else ("data=digits",)
        rows.append(Row(name, 5, (f"method={name}", *data)))
    return rows


def heads() -> list[tuple[str, str]]:
    """Returns every preset with the first line of its file, which says what it is and whose."""
    files = sorted((ROOT / "conf" / "method").glob("*.yaml"))
    return [(file.stem, file.read_text().splitlines()[1].removeprefix("# ")) for file in files]


def run(row: Row, folder: Path, extra: list[str]) -> None:
    """Starts, continues or skips a row."""
    directory = folder / row.name
    if (directory / "metrics.json").is_file():
        print(f"{row.name}: finished")
        return
    unfinished = (directory / "checkpoints" / "last.ckpt").is_file()
    words = (
        [f"resume={directory}", f"trainer.max_epochs={row.epochs}"]
        if unfinished
        else [*row.arguments(folder), *extra, f"hydra.run.dir={directory}"]
    )
    print(f"{row.name}: python train.py {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=ROOT, check=False)
    if done.returncode in (130, 143):
        raise SystemExit(f"stopped; run the script again to go on with {row.name}")
    if done.returncode:
        print(f"{row.name} failed with exit code {done.returncode}; going on", file=sys.stderr)


def digits_table(folder: Path) -> str:
    """Returns the Markdown table of all presets."""
    lines = ["| `method=` | what | digits: test ELBO (reconstruction, KL) |", "|---|---|---|"]
    for name, head in heads():
        file = folder / name / "metrics.json"
        m = json.loads(file.read_text()) if file.is_file() else None
        figure = ""
        if m is not None:
            elbo, reconstruction, kl = (f"{m[f'test/{key}']:.2f}" for key in ("elbo", "reconstruction", "kl"))
            figure = f"no bound ({reconstruction})" if m["test/kl"] == 0 else f"{elbo} ({reconstruction}, {kl})"
        lines.append(f"| `{name}` | {head.replace('|', chr(92) + '|')} | {figure} |")
    return "\n".join(lines)


def mnist_table(folder: Path) -> str:
    """Returns the Markdown table of the finished rows."""
    lines = [
        "| method | test figure | test ELBO (reconstruction, KL) | epochs | CPU minutes |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        file = folder / row.name / "metrics.json"
        if not file.is_file():
            continue
        m = json.loads(file.read_text())
        parts = f"{m['test/elbo']:.2f} ({m['test/reconstruction']:.2f}, {m['test/kl']:.2f})"
        note = f", {row.note}" if row.note else ""
        figure = f"{row.figure.removeprefix('test/').replace('_', ' ')} {m[row.figure]:.4g}"
        lines.append(f"| `{row.name}`{note} | {figure} | {parts} | {m['epochs']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["digits", "mnist"])
    parser.add_argument("--only", help="the rows to run, separated by commas")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="print the table of what is finished, and run nothing")
    parser.add_argument("extra", nargs="*", help="further overrides for every run, such as data.root=DIR")
    arguments = parser.parse_intermixed_args()
    only = arguments.only.split(",") if arguments.only else []
    folder = (arguments.folder or Path(f"outputs/{arguments.data}_table")).resolve()
    rows = list(ROWS) if arguments.data == "mnist" else digits_rows()
    if unknown := set(only) - {row.name for row in rows}:
        parser.error(f"there is no row {', '.join(sorted(unknown))}; choose from {', '.join(r.name for r in rows)}")
    if not arguments.table:
        for row in rows:
            if not only or row.name in only:
                run(row, folder, arguments.extra)
    print(digits_table(folder) if arguments.data == "digits" else mnist_table(folder))


if __name__ == "__main__":
    main()
