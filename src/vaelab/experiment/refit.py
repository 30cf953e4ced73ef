"""A new prior for a finished model, everything else kept as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from vaelab.errors import UserError
from vaelab.experiment.assemble import Parts
from vaelab.experiment.files import BEST, stored_config
from vaelab.experiment.instantiate import refusal
from vaelab.experiment.load import find_checkpoint, model_weights, read_checkpoint
from vaelab.models import Model
from vaelab.numerics import seeded

MONITOR = "val/log_prior"
CODES = 10_000  # how many training images a prior starts from
# Of the data, what a new run may choose: where it lies and how it is read, not what it is.
DATA = ("data.root", "data.path", "data.device", "data.batch_size", "data.eval_batch_size")


def refitted(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns the configuration of a run that fits `cfg.model.prior` to the codes of the run `cfg.refit`.

    Model and data are those of that run; optimizer, trainer, callbacks and loggers are new.

    Raises:
        UserError: if there is no such run, an override would change its model or its data, or no prior is chosen.
    """
    directory = Path(str(cfg.refit)).expanduser()
    stored = stored_config(directory, "refit")
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = {o.key_or_group.replace("/", "."): o.input_line for o in parsed}
    if not any(key.startswith("model.prior") for key in keys):
        raise UserError("refit fits a new prior to a run: choose one, for example model/prior=gaussian_mixture")
    for key, line in keys.items():
        fixed = key.split(".")[0] in ("data", "model", "objective", "network", "method", "experiment")
        if fixed and not key.startswith(("model.prior", *DATA)):
            raise UserError(f"refit keeps the model and the data of {cfg.refit}, and {line} would change them")
    prior = cfg.model.prior
    with open_dict(cfg), open_dict(stored):
        for key in DATA:
            if key in keys:
                OmegaConf.update(stored, key, OmegaConf.select(cfg, key))
        cfg.data, cfg.model = stored.data, stored.model
        cfg.model.prior = prior
        cfg.objective = {"_target_": "vaelab.objectives.PriorLikelihood"}
        cfg.monitor = MONITOR
        cfg.refit = str(directory)
    return cfg


def keep_all_but_prior(model: Model) -> None:
    """Freezes everything in `model` but its prior: no gradients, and no batch statistics either."""
    priors = {id(p) for part in model.parts()["prior"] for p in part.parameters()}
    trained = 0
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in priors)
        trained += id(parameter) in priors
    if not trained:
        raise UserError(
            "this prior has nothing to fit; choose one that is learned, for example model/prior=gaussian_mixture"
        )
    model.eval()
    for part in model.parts()["prior"]:
        part.train()


@torch.no_grad()
def keep_weights(directory: Path, parts: Parts, cfg: DictConfig) -> None:
    """Loads the weights of the run in `directory`, all but the prior's, and lets the new prior look at its codes.

    Raises:
        UserError: if the weights do not fit, or the prior cannot start from such codes.
    """
    model, data = parts.model, parts.data
    file = find_checkpoint(directory.expanduser(), BEST.name)
    weights = model_weights(read_checkpoint(file))
    priors = {id(part) for part in model.parts()["prior"]}
    inside = tuple(f"{n}." for n, part in model.named_modules(remove_duplicate=False) if id(part) in priors)
    old = {k: v for k, v in weights.items() if not k.startswith(inside)}
    missing, unexpected = model.load_state_dict(old, strict=False)
    if unexpected or any(not name.startswith(inside) for name in missing):
        raise UserError(f"the weights in {file} do not fit the model that {directory} describes")
    images = data.splits["train"].choice(CODES)
    parts_of_codes = []
    with seeded(0, model.device):
        for i in range(0, len(images), 1000):
            x, y = images.batch(slice(i, i + 1000))
            parts_of_codes.append(model.encode(x.to(model.dtype), y).sample())
    try:
        for prior in model.parts()["prior"]:
            prior.initialize(torch.cat(parts_of_codes))  # type: ignore[operator]
    except ValueError as error:
        raise refusal(error, cfg.model.prior, "model.prior") from error
