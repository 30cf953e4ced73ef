"""A new run that starts from the weights of a finished one: fine-tuning, another objective, another data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict

from vaelab.errors import UserError
from vaelab.experiment.files import BEST, stored_config
from vaelab.experiment.load import find_checkpoint, model_weights, objective_weights, read_checkpoint
from vaelab.experiment.resume import overridden
from vaelab.training import VAEModule

CONFIGURED = ("mean", "std", "fixed_scale")  # buffers that hold what the configuration says
WHOLE = ("model", "method", "experiment", "network")  # their options set entries of several groups at once


def initialized(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns the configuration of the run `cfg.init_from`, with everything that `overrides` name as it is in `cfg`.

    Raises:
        UserError: if there is no such run, or an override chooses a whole model.
    """
    stored = stored_config(Path(str(cfg.init_from)).expanduser(), "init_from")
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


def start_from(directory: Path, module: VAEModule, overrides: Sequence[str]) -> list[str]:
    """Gives model and objective the best weights of the run in `directory`.

    What the configuration says stays: a likelihood's fixed scale, what the encoder's view of the data is divided by.

    Returns:
        What starts afresh: parts of the model that an override changes, as in model/prior=flow, so that their weights
        do not fit, and an objective that learns and was changed.

    Raises:
        UserError: if the weights of any other part do not fit.
    """
    file = find_checkpoint(directory.expanduser(), BEST.name)
    stored = read_checkpoint(file)
    typed = [str(o.input_line).lstrip("+~") for o in OverridesParser.create().parse_overrides(list(overrides))]
    of_model = [line for line in typed if line.startswith(("model/", "model."))]
    changed = {line.partition("=")[0].replace("/", ".").split(".")[1] for line in of_model}
    model = module.model
    parameters = dict(model.named_parameters())
    there, here = (
        {k: v for k, v in some.items() if k in parameters or k.rpartition(".")[2] not in CONFIGURED}
        for some in (model_weights(stored), model.state_dict())
    )
    shapes, wanted = ({name: tuple(value.shape) for name, value in some.items()} for some in (there, here))
    afresh = set()
    for name in sorted(name for name in {**shapes, **wanted} if shapes.get(name) != wanted.get(name)):
        part = next((part for part in name.split(".") if part in changed), None)
        if part is None:
            why = (
                f"leave out {', '.join(of_model)}"
                if of_model
                else "the images must be of the shape that they are there"
            )
            raise UserError(
                f"the weights of {directory} do not fit this model: {name} is {described(shapes, name)} there and "
                f"{described(wanted, name)} here; {why}"
            )
        afresh.add(part)
    kept = {name: value for name, value in there.items() if not afresh & set(name.split("."))}
    model.load_state_dict(kept, strict=False)
    learned = objective_weights(stored)
    if module.objective.state_dict() and any(line.startswith("objective") for line in typed):
        afresh.add("objective")
    elif learned:
        module.objective.load_state_dict(learned)
    return sorted(afresh)


def described(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    """Returns the shape of a tensor in words."""
    return "x".join(map(str, shapes[name])) or "one number" if name in shapes else "missing"
