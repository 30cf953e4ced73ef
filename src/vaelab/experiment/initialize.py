"""A new run that starts from the weights of a finished one: fine-tuning, another objective, another data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from vaelab.errors import UserError
from vaelab.experiment.files import BEST
from vaelab.experiment.load import find_checkpoint, model_weights, read_checkpoint
from vaelab.experiment.resume import overridden, stored_config
from vaelab.models import Model

WHOLE = ("method", "experiment", "network")  # their options set entries of several groups at once


def initialized(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns the configuration of the run `cfg.init_from`, with everything that `overrides` name as it is in `cfg`.

    Raises:
        UserError: if there is no such run, or an override chooses a whole model.
    """
    stored = stored_config(Path(cfg.init_from).expanduser(), "init_from")
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.key_or_group in WHOLE:
            raise UserError(
                f"init_from takes its model from {cfg.init_from}, and {override.input_line} would choose another one; "
                "change single entries instead, for example objective=iwae or model/prior=flow"
            )
    with open_dict(stored):
        if stored.get("refit") is not None:  # it trained nothing but its prior
            stored.objective, stored.monitor = cfg.objective, cfg.monitor
        if any(override.key_or_group == "objective" for override in parsed):
            stored.monitor = cfg.monitor
        stored.resume = stored.refit = None
        stored.derived = cfg.derived
    return overridden(stored, cfg, overrides)


def start_from(directory: Path, model: Model, overrides: Sequence[str]) -> list[str]:
    """Gives `model` the best weights of the run in `directory`.

    Returns:
        The parts that start afresh: those that an override changes, as in model/prior=flow, so that no weights fit.

    Raises:
        UserError: if the weights of any other part do not fit.
    """
    file = find_checkpoint(directory.expanduser(), BEST.name)
    there, here = model_weights(read_checkpoint(file)), model.state_dict()
    shapes, wanted = ({name: tuple(value.shape) for name, value in some.items()} for some in (there, here))
    differ = sorted(name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name))
    keys = [
        o.key_or_group.replace("/", ".").split(".") for o in OverridesParser.create().parse_overrides(list(overrides))
    ]
    changed = {key[1] for key in keys if key[0] == "model" and len(key) > 1}
    afresh = sorted({name.split(".")[0] for name in differ} & changed)
    for name in differ:
        if name.split(".")[0] not in afresh:
            raise UserError(
                f"the weights of {directory} do not fit this model: {name} is {described(shapes, name)} there and "
                f"{described(wanted, name)} here; leave the model's sizes and the shape of the images as they are there"
            )
    model.load_state_dict({k: v for k, v in there.items() if k.split(".")[0] not in afresh}, strict=False)
    return afresh


def described(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    """Returns the shape of a tensor in words."""
    return "x".join(map(str, shapes[name])) or "one number" if name in shapes else "missing"
