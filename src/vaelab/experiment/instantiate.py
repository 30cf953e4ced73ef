"""Builds objects from configuration nodes, and explains a wrong entry by its full key."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

import torch
from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.errors import InstantiationException
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.checks import did_you_mean
from vaelab.errors import UserError

LENIENT = BeartypeConf(is_pep484_tower=True)  # an int is a float
TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    torch.Tensor: "a number",
}


def build(cfg: DictConfig, path: str, **partial: Any) -> Any:
    """Checks `cfg` against the signatures that its `_target_`s name, and instantiates it.

    Args:
        cfg: a node with a `_target_`.
        path: its dotted key, for messages.
        partial: `_partial_=True` to get the callable instead.

    Raises:
        UserError: for an unknown or ill-typed entry, or a value that a constructor refuses.
    """
    check(cfg, path)
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(plain, dict)
        own = {key: value for key, value in plain.items() if key not in helpers(cfg, path)}
        return hydra_instantiate(own, _convert_="all", **partial)
    except InstantiationException as error:
        raise refusal(error.__cause__ or error, cfg, path) from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error


def refusal(error: BaseException, cfg: DictConfig, path: str) -> BaseException:
    """Turns a constructor's complaint into a UserError that starts with the full key; other errors are bugs."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, ModuleNotFoundError):
        what = error.name or " ".join(str(error).split())
        return UserError(f"{path} needs a package that is not installed ({what}); install it with pip")
    if isinstance(error, TypeError) and (lacking := re.findall(r"'(\w+)'", str(error).partition(" required ")[2])):
        wanted, _ = signature(cfg._target_, path)
        if set(lacking) <= set(wanted) - set(map(str, cfg)):
            return UserError(f"{path} lacks {', '.join(lacking)}, which must be given")
    if not isinstance(error, (ValueError, MisconfigurationException)):
        return error
    text = " ".join(str(error).split())
    known = text.split("[")[0].split()[0] in cfg
    return UserError(f"{path}.{text}" if known else f"{path}: {text}" if not text.startswith(path) else text)


def check(node: Any, path: str) -> None:
    """Compares the entries of every `_target_` below `node` with the parameters it takes, by name and by type.

    Raises:
        UserError: naming the entry's full key.
    """
    if isinstance(node, ListConfig):
        for i, item in enumerate(node):
            check(item, f"{path}[{i}]")
    if not isinstance(node, DictConfig):
        return
    hints: dict[str, Any] = {}
    if (target := node.get("_target_")) is not None:
        parameters, hints = signature(target, path)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        names = [
            n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n != "self"
        ]
        allowed = {*names, *helpers(node, path)}
        for key in map(str, node):
            full = f"{path}.{key}"
            if not key.startswith("_") and key not in allowed and not open_ended:
                raise UserError(f"there is no key '{full}'{did_you_mean(full, [f'{path}.{n}' for n in names])}")
    for key in map(str, node):
        full = f"{path}.{key}"
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{full} must be given: {full}=VALUE")
        value = node[key]
        check(value, full)
        if key in hints and not _fits(value, hints[key]):
            shown = OmegaConf.to_container(value) if isinstance(value, (DictConfig, ListConfig)) else value
            raise UserError(f"{full} must be {describe(hints[key])}, but is {shown!r}")


def signature(target: str, path: str) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Returns the parameters and the type hints of what `target` names.

    Raises:
        UserError: if there is no such object.
    """
    try:
        found = get_object(target)
    except Exception as error:
        raise UserError(f"{path}._target_: {target} cannot be imported ({' '.join(str(error).split())})") from error
    parameters = dict(inspect.signature(found).parameters)
    try:
        hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except (NameError, TypeError):
        hints = {}  # names that exist for type checkers only
    return parameters, hints


def describe(hint: Any) -> str:
    """Says in words what a type hint allows."""
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(a) for a in arguments))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is not None and inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"a list (each entry {describe(arguments[0])})" if arguments else "a list"
    return getattr(hint, "__name__", str(hint))


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(value, DictConfig):
        return True  # an object to be built, or free-form options
    if isinstance(value, ListConfig):
        plain = OmegaConf.to_container(value, resolve=True)
        assert isinstance(plain, list)
        return any(is_bearable(kind(plain), hint, conf=LENIENT) for kind in (list, tuple))
    if isinstance(value, bool) and hint in (int, float):
        return False
    return is_bearable(value, hint, conf=LENIENT)


def helpers(node: DictConfig, path: str) -> list[str]:
    """Returns the keys that exist only for deeper entries to refer to, as `data.path` does for `data.source.path`."""
    raw = str(OmegaConf.to_container(node, resolve=False))
    return [key for key in map(str, node) if f"${{{path}.{key}}}" in raw]
