"""Errors in composing a configuration, in one sentence that says what to type instead."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.checks import did_you_mean
from vaelab.locations import CONF

# What another directory may remedy.
NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def explain(error: Exception, arguments: Sequence[str], config: str = "train") -> str:
    """Turns an error in composing the configuration into one sentence that says what to type instead."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        if "=" not in error.override:
            return f"{error.override} is no override; write KEY=VALUE or GROUP=OPTION"
        return (
            f"{error.override} cannot be read: brackets must close, and a value with any of []{{}}(),:= in it needs "
            "quotes of its own within those of the shell, as 'run=\"a/[bc]*\"'"
        )
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not find '(.+)/(.+?)'", text)):
        group, option = found.groups()
        options = [o for o in re.findall(r"^\t(\S+)$", text, re.MULTILINE) if not o.startswith("_")]
        return f"{group}={option} is no option; choose one of {', '.join(options)}{did_you_mean(option, options)}"
    if isinstance(error, ConfigCompositionException) or "is not in struct" in text:
        found = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
        if found and "No match in the defaults list" in text:
            if found[1] in groups():
                return misplaced(found[1], re.search(r"In '(\w+)/(\w+)'", text), arguments)
            return f"there is no group or key '{found[1]}'{nearest(found[1], list(groups()))}"
        cause = str(error.__cause__ or error).splitlines()[0]
        if found and "is not in struct" in f"{text}{cause}":
            keys = [*known_keys(found[1], arguments, config), *groups()]
            if any(argument.startswith("init_from=") for argument in arguments):
                return f"there is no key '{found[1]}' by default; if the run of init_from has it, type +{found[1]}=..."
            return f"there is no key '{found[1]}'{nearest(found[1], keys)}"
        if found:
            return f"{found[1]}: {cause}"
    return " ".join(line.strip() for line in text.splitlines()[:2])


def of_the_machine(error: Exception) -> str:
    """Says in one sentence what the machine refused, a file or memory, or Hydra an empty choice; empty for a bug."""
    text = " ".join(str(error).split())
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename and Path(error.filename).is_file():
        return f"{error.filename} is a file, where a directory is needed"
    if isinstance(error, OSError) and error.filename and error.errno in NO_PLACE:
        return f"{error.filename} cannot be used: {error.strerror}; give another place"
    if isinstance(error, MemoryError) or re.search(r"(out of|not enough|allocate) memory", text, re.IGNORECASE):
        reason = text.partition("] ")[2] or text or type(error).__name__
        return (
            f"there is not enough memory for this ({reason[:100]}); take a smaller data.batch_size (likelihood.rows in "
            "an evaluation) or smaller layers"
        )
    if "Config group override must be a string or a list" in text:
        return "a group's option cannot be null or empty; give one by name, or leave the group out"
    return ""


def misplaced(group: str, chooser: re.Match[str] | None, arguments: Sequence[str]) -> str:
    """Says which option has no such `group`, and which one (or the user) chooses it all the same."""
    chosen = "=".join(chooser.groups()) if chooser else group
    parents = [a for a in arguments if "=" in a and group.startswith(f"{a.split('=')[0]}/")]
    other = max(parents, key=len, default="the other options")
    what = f"chooses the group {group}, which" if chooser else "is a group that"
    return f"{chosen} {what} does not go with {other}; leave one of the two out"


def nearest(key: str, keys: Sequence[str]) -> str:
    """Returns "; did you mean ...?" for the key that ends alike or is spelt alike, or where to look."""
    same_end = [k for k in keys if k.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    parent, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in keys if k.rpartition(".")[0] == parent}
    if suggestion := did_you_mean(name, siblings):
        return suggestion.replace("'", f"'{parent}." if parent else "'", 1)
    if same_end:
        return f"; did you mean '{same_end[0]}'?"
    return did_you_mean(key, keys) or "; `--cfg job` prints all of them"


def known_keys(wrong: str, arguments: Sequence[str], config: str) -> list[str]:
    """Returns every key of the configuration that the other arguments choose."""
    others = [a for a in arguments if "=" in a and not a.startswith("-") and a.split("=")[0].lstrip("+~") != wrong]
    for overrides in (others, []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
                cfg = compose(config, overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return list(dotted(OmegaConf.to_container(cfg, resolve=False)))
    return []


def dotted(node: object, prefix: str = "") -> Iterator[str]:
    """Yields the dotted path of every entry of nested dictionaries."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
                yield from dotted(value, f"{prefix}{key}.")


def groups() -> Iterator[str]:
    """Yields the groups of the configuration."""
    for folder in CONF.rglob("*"):
        if folder.is_dir():
            yield folder.relative_to(CONF).as_posix()
