"""What surrounds every command: where `conf/` is, run directories, and mistakes answered in one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.checks import did_you_mean
from vaelab.errors import Stopped, UserError

HERE = Path(__file__).resolve().parent
# In a wheel the configuration lies in the package, in a checkout at its top level.
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parents[1] / "conf"


def stamp() -> str:
    """Returns the date and the time to the millisecond as a relative path."""
    return datetime.now().strftime("%Y-%m-%d/%H-%M-%S.%f")[:-3]


def run_dir(resume: str | None) -> str:
    """Returns the directory of a run: a new one, or the one to resume."""
    if resume is None:
        return f"outputs/{stamp()}"
    path = Path(resume)
    return str(path.parent.parent if path.suffix == ".ckpt" else path)


OmegaConf.register_new_resolver("vaelab_stamp", stamp, use_cache=True, replace=True)
OmegaConf.register_new_resolver("vaelab_run_dir", run_dir, use_cache=True, replace=True)


def task(cfg: DictConfig) -> float | None:
    """Runs one job in the directory that Hydra chose; a failed job of a sweep is recorded and the sweep goes on."""
    hydra_cfg = HydraConfig.get()
    directory = Path(os.path.relpath(hydra_cfg.runtime.output_dir))
    if directory.parts[:1] == ("..",):
        directory = directory.resolve()
    overrides = list(hydra_cfg.overrides.task)
    if hydra_cfg.mode != RunMode.MULTIRUN:
        with no_empty_directory(directory):
            from vaelab.experiment import run

            try:
                return run(cfg, directory=directory, overrides=overrides)
            except UserError as error:
                raise Stopped(f"error: {error}", 1) from error  # past Hydra, which would add a line of its own
    print(f"\n[job {hydra_cfg.job.num}] {' '.join(overrides)}", flush=True)
    try:
        if str(cfg.trainer.devices) != "1":
            # A job on several devices starts processes that repeat the command line: it must be a command of its own.
            command = [sys.executable, "-m", "vaelab.train", *overrides, f"hydra.run.dir='{directory}'"]
            code = subprocess.run(command, check=False).returncode
            if code:
                raise UserError(f"the job's process ended with exit code {code}")
            return None
        from vaelab.experiment import run

        return run(cfg, directory=directory, overrides=overrides)
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else traceback.format_exc()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "error.txt").write_text(f"{' '.join(overrides)}\n{message}\n")
        print(f"error: {message}", file=sys.stderr)
        return float("nan")
    except Stopped as stopped:
        if stopped.exit_code != 1:
            raise
        (directory / "error.txt").write_text(f"{' '.join(overrides)}\n{stopped.message}\n")
        print(stopped.message, file=sys.stderr)
        return float("nan")


class no_empty_directory:
    """Removes `directory`, and folders above it up to the working directory, if the block leaves them empty."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for folder in (self.directory, *self.directory.parents):
            if folder == Path.cwd() or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def run_main(main: Callable[[], object]) -> None:
    """Runs a Hydra main; answers a user's mistake with one sentence and exit code 1, signals with 128 + their number.

    With HYDRA_FULL_ERROR=1 every error keeps its traceback.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        main()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hands errors through to us instead of printing them
    try:
        main()
    except Stopped as stopped:
        fail(stopped.message, stopped.exit_code)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        fail("interrupted before training began; nothing was saved", 130)
    except (HydraException, OmegaConfBaseException) as error:
        fail(f"error: {explain(error, sys.argv[1:])}")
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Prints one sentence and ends the process."""
    print(message, file=sys.stderr)
    raise SystemExit(exit_code)


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Turns an error in composing the configuration into one sentence that says what to type instead."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not find '(.+)/(.+?)'", text)):
        group, option = found.groups()
        options = [o for o in re.findall(r"^\t(\S+)$", text, re.MULTILINE) if not o.startswith("_")]
        return f"{group}={option} is no option; choose one of {', '.join(options)}{did_you_mean(option, options)}"
    if isinstance(error, ConfigCompositionException) or "is not in struct" in text:
        found = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
        if found and "No match in the defaults list" in text:
            return f"there is no group or key '{found[1]}'{nearest(found[1], list(groups()))}"
        cause = str(error.__cause__ or error).splitlines()[0]
        if found and "is not in struct" in f"{text}{cause}":
            return f"there is no key '{found[1]}'{nearest(found[1], [*known_keys(found[1], arguments), *groups()])}"
        if found:
            return f"{found[1]}: {cause}"
    return " ".join(line.strip() for line in text.splitlines()[:2])


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


def known_keys(wrong: str, arguments: Sequence[str]) -> list[str]:
    """Returns every key of the configuration that the other arguments choose."""
    others = [a for a in arguments if "=" in a and not a.startswith("-") and a.split("=")[0].lstrip("+~") != wrong]
    for overrides in (others, []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
                cfg = compose("train", overrides=overrides)
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
