"""The help of the training command, read off the configuration's folders without composing anything."""

from __future__ import annotations

from pathlib import Path

USAGE = """\
Trains a variational autoencoder: python train.py [GROUP=OPTION] [KEY=VALUE] ...

  python train.py data=digits                            real digits, no download, seconds
  python train.py model.latent_dim=16                    MNIST with 16 latent dimensions
  python train.py network=conv objective.beta=4          another network, another weight of the KL
  python train.py method=iwae                            an autoencoder of the field
  python train.py experiment=keras_conv                  a published set-up
  python train.py resume=RUN_DIR trainer.max_epochs=40   go on with a run
  python train.py refit=RUN_DIR model/prior=flow         another prior for a finished run
  python train.py init_from=RUN_DIR objective=iwae       a new run that starts from the weights of another
  python evaluate.py run=RUN_DIR                         what a finished run is worth
  python train.py -m model.latent_dim=2,8,16             a sweep
  python train.py --cfg job                              the whole configuration, every key with its value
  python train.py --hydra-help                           what else the command line can do

Groups and their options:
"""


def help_text(conf: Path) -> str:
    """Returns the usage, and every group of the configuration with its options."""
    groups: dict[str, list[str]] = {}
    for file in sorted(conf.rglob("*.yaml")):
        group = file.parent.relative_to(conf).as_posix()
        if group != "." and not file.stem.startswith("_"):
            groups.setdefault(group, []).append(file.stem)
    return USAGE + "\n".join(f"  {group}: {', '.join(options)}" for group, options in groups.items())
