"""The evaluation command: `python evaluate.py`, `python -m vaelab.evaluate` and `vaelab-evaluate`.

Nothing heavy is imported here, so that --help and --cfg answer at once.
"""

from __future__ import annotations

import sys

from vaelab.locations import CONF

USAGE = """\
Judges finished runs: python evaluate.py run=RUN_DIR [KEY=VALUE] ...

  python evaluate.py run=RUN_DIR                                 what applies, on the test images
  python evaluate.py 'run=outputs/*/*' parts=[likelihood]        many runs, one part
  python evaluate.py run=RUN_DIR likelihood.k=500 limit=1000     500 draws for each of 1,000 images
  python evaluate.py run=RUN_DIR split=val                       for choices: the test images are for the end
  python evaluate.py --cfg job                                   every key with its value

Figures go to RUN_DIR/evaluation.json, each with its standard error and protocol; parts that are there already with the
same settings are not measured again (again=true does).
"""


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

    run_main(task, config="evaluate", interrupted="interrupted; the parts that were finished are kept")


if __name__ == "__main__":
    main()
