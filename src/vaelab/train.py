"""The training command: `python train.py`, `python -m vaelab.train` and `vaelab-train`.

Nothing heavy is imported here, so that --help, --cfg and shell completion answer at once.
"""

from __future__ import annotations

import sys

from vaelab.help import help_text
from vaelab.locations import CONF


def main() -> None:
    """Runs the command line, and ends the process with its exit code."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(CONF))
        return
    import hydra
    from omegaconf import DictConfig

    from vaelab.cli import run_main, task

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
    def train(cfg: DictConfig) -> float | None:
        return task(cfg)

    run_main(train)


if __name__ == "__main__":
    main()
