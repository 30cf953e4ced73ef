"""The table that ends a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

FIGURES = ("val/elbo", "test/elbo", "test/reconstruction", "test/kl")  # beside what selected the weights
PLAIN_WIDTH = 160  # of the table where no terminal limits it


class SweepTable(Callback):
    """Prints and saves a table of all jobs of a multirun: overrides and metrics, best by their `monitor` first."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Reads what the jobs left; ends the process with exit code 1 if a job failed."""
        directory = Path(config.hydra.sweep.dir)
        rows = collect(directory)
        if not rows:
            return
        common = set.intersection(*(set(row["overrides"]) for row in rows))
        watched = list(dict.fromkeys(row["monitor"] for row in rows if "monitor" in row))
        names = list(dict.fromkeys((*watched, *FIGURES)))
        title = f"{len(rows)} jobs" + (f", best {' or '.join(watched)} first (nats per image)" if watched else "")
        table = Table(title=f"{title}; all with {' '.join(sorted(common))}" if common else title, title_justify="left")
        table.add_column("job")
        table.add_column("overrides")
        for name in names:
            table.add_column(name, justify="right")
        for row in rows:
            figures = [f"{row[name]:.2f}" if name in row else "failed" if "error" in row else "" for name in names]
            table.add_row(row["job"], " ".join(o for o in row["overrides"] if o not in common), *figures)
        console = Console(highlight=False, soft_wrap=True)
        if not console.is_terminal:
            console = Console(highlight=False, soft_wrap=True, width=PLAIN_WIDTH)
        console.print(table)
        console.print(f"watch     tensorboard --logdir {directory}")
        (directory / "sweep.json").write_text(json.dumps(rows, indent=2) + "\n")
        if any("error" in row for row in rows):
            raise SystemExit(1)


def collect(directory: Path) -> list[dict[str, Any]]:
    """Returns a row for every job below `directory`: best first, each by what its `monitor` names; failed jobs last."""
    rows: list[dict[str, Any]] = []
    for job in sorted(p for p in directory.iterdir() if p.is_dir()):
        if (job / "metrics.json").is_file():
            overrides = OmegaConf.to_container(OmegaConf.load(job / "overrides.yaml"))
            monitor, metrics = finished(job)
            rows.append({"job": job.name, "overrides": overrides, "monitor": monitor, **metrics})
        elif (job / "error.txt").is_file():
            first, _, rest = (job / "error.txt").read_text().partition("\n")
            rows.append({"job": job.name, "overrides": first.split(), "error": rest.strip()})
    return sorted(rows, key=lambda row: -row.get(row.get("monitor", ""), -math.inf))


def finished(directory: Path) -> tuple[str, dict[str, float]]:
    """Returns the name of the figure that selected the weights of the run in `directory`, and all its figures."""
    cfg = OmegaConf.load(directory / "config.yaml")
    return str(OmegaConf.select(cfg, "monitor")), json.loads((directory / "metrics.json").read_text())
