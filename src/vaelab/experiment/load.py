"""A trained model from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from vaelab.errors import UserError
from vaelab.experiment.instantiate import build
from vaelab.models import Model

PART_ROOMS = ("networks", "samplers", "priors", "likelihoods", "models")


def load(path: str | Path, *, device: str | torch.device = "cpu", trusted: Sequence[str] = ()) -> Model:
    """Rebuilds a trained model from a run directory (its best weights) or from a checkpoint file.

    A checkpoint holds tensors and plain values only and is read as such; of the classes that it names, only vaelab's
    own are built.

    Args:
        path: the run directory or the .ckpt file.
        device: where to put the model.
        trusted: further packages whose classes may be built, for models with parts of your own.

    Returns:
        The model in evaluation mode, with `encode`, `decode`, `reconstruct`, `sample` and `elbo`.

    Raises:
        UserError: (a ValueError) if there is no checkpoint, it is damaged, or it names a class of another package.
    """
    file = find_checkpoint(Path(path), "best.ckpt")
    checkpoint = read_checkpoint(file)
    cfg = OmegaConf.create(checkpoint["vaelab"]["config"]["model"])
    assert isinstance(cfg, DictConfig)
    for target in _targets(checkpoint["vaelab"]["config"]["model"]):
        check_trusted(target, trusted, file)
    model: Model = build(cfg, "model")
    weights = model_weights(checkpoint)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the weights in {file} do not fit the model that it describes: {error}") from error
    dtype = next((v.dtype for v in weights.values() if v.is_floating_point()), torch.float32)
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)


def check_trusted(target: str, trusted: Sequence[str], file: Path) -> None:
    """Raises a UserError unless `target` is a part of a model of vaelab's own, or of a trusted package.

    What counts is where the object was defined: `vaelab.cli.os.system` is reached through vaelab and is not its own.
    """
    package = target.split(".")[0]
    if package == "vaelab":
        try:
            defined = str(getattr(get_object(target), "__module__", ""))
        except Exception as error:
            raise UserError(f"{file} asks to build {target}, which this version of vaelab does not have") from error
        if defined.split(".")[:2] in [["vaelab", room] for room in PART_ROOMS]:
            return
    elif package in trusted:
        return
    raise UserError(f"{file} asks to build {target}; if you trust it, load(..., trusted=['{package}'])")


def find_checkpoint(path: Path, name: str) -> Path:
    """Returns the checkpoint called `name` of a run directory, or `path` itself if that is a file.

    Raises:
        UserError: if there is none.
    """
    path = path.expanduser()
    if path.is_file():
        return path
    for candidate in (path / "checkpoints" / name, path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return candidate
    found = path.is_dir() and any(path.iterdir())
    what = "holds no checkpoint (checkpoints/last.ckpt)" if found else "is empty or does not exist"
    raise UserError(f"{path} {what}; give a run directory, for example outputs/2026-01-31/12-00-00.000")


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads a checkpoint without running any code in it.

    Raises:
        UserError: if it is damaged or not one of vaelab's.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds for a damaged file, some with advice to trust it
        raise UserError(
            f"{file} could not be read as a checkpoint ({type(error).__name__}); it is none, or damaged: the last one "
            "of a run is checkpoints/last.ckpt"
        ) from error
    if not isinstance(checkpoint, dict) or "vaelab" not in checkpoint:
        raise UserError(f"{file} is not a checkpoint of vaelab")
    return checkpoint


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Returns the weights of the model in a checkpoint by their names in the model."""
    return _weights_of(checkpoint, "model.")


def objective_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Returns what the objective in a checkpoint had learned, by its names there: for most objectives nothing."""
    return _weights_of(checkpoint, "objective.")


def _weights_of(checkpoint: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    stored = checkpoint["state_dict"]
    return {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
