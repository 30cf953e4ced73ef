"""The evaluation command: `python evaluate.py`, `python -m vaelab.evaluate` and `vaelab-evaluate`.

Nothing heavy is imported here, so that --help and --cfg answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vaelab.locations import CONF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaelab.evaluation import Figure

USAGE = """\
Judges finished runs: python evaluate.py run=RUN_DIR [KEY=VALUE] ...

  python evaluate.py run=RUN_DIR                                 likelihood, latents, reconstruction; test images
  python evaluate.py 'run=outputs/*/*' parts=[likelihood]        many runs, one part, compared image by image
  python evaluate.py run=[RUN_DIR,RUN_DIR] parts=[likelihood]    the same of two runs
  python evaluate.py run=RUN_DIR likelihood.k=500 limit=1000     500 draws for each of 1,000 images
  python evaluate.py run=RUN_DIR split=val                       for choices: the test images are for the end
  python evaluate.py --cfg job                                   every key with its value

Parts: likelihood, annealing, latents, disentanglement, samples, reconstruction, denoising, anomaly.

Figures go to RUN_DIR/evaluation.json, each with its standard error and protocol; parts that are there already with the
same settings are not measured again (again=true does). In Python: from vaelab.evaluate import evaluate.
"""


def evaluate(run: str | Path | Sequence[str | Path], *overrides: str) -> dict[str, list[Figure]]:
    """Evaluates finished runs as the command line does: evaluate("outputs/vae", "likelihood.k=500", "limit=1000").

    Args:
        run: a run directory, a checkpoint, a pattern of several, or a list of those.
        overrides: what could stand on the command line.

    Returns:
        The figures of every run directory.

    Raises:
        UserError: (a ValueError) if there is no such run, or an override makes no sense.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from vaelab.errors import UserError
    from vaelab.experiment.evaluate import evaluate
    from vaelab.explain import explain

    if wrong := [word for word in overrides if not isinstance(word, str)]:
        raise UserError(f"overrides are strings, one by one, such as 'limit=100', but there is {wrong[0]!r}")
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = compose("evaluate", overrides=list(overrides))
    except HydraException as error:
        raise UserError(explain(error, overrides, "evaluate")) from error
    if not isinstance(run, str | Path | list | tuple):
        raise UserError(f"run must be a run directory, a pattern of several, or a list of those, but is {run!r}")
    cfg.run = str(run) if isinstance(run, str | Path) else [str(path) for path in run]
    return evaluate(cfg)


def main() -> None:
    """Runs the command line, and ends the process with its exit code."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(USAGE)
        return
    import hydra
    from omegaconf import DictConfig

    from vaelab.cli import fail, run_main

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
    def task(cfg: DictConfig) -> None:
        from omegaconf import OmegaConf

        from vaelab.errors import UserError

        if OmegaConf.is_missing(cfg, "run"):
            fail("error: run must be given: run=RUN_DIR, a run directory or a pattern of several")
        from vaelab.experiment.evaluate import evaluate

        try:
            evaluate(cfg)
        except UserError as error:
            fail(f"error: {error}")

    run_main(task, config="evaluate", interrupted="interrupted; the same command goes on with what is missing")


if __name__ == "__main__":
    main()
