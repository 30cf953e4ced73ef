"""What surrounds every command: where `conf/` is, run directories, and mistakes answered in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.errors import Stopped, UserError
from vaelab.explain import explain, of_the_machine
from vaelab.locations import CONF, run_dir, stamp
from vaelab.sweep import finished

__all__ = ["CONF", "run_main", "task"]

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # the user asked for them

OmegaConf.register_new_resolver("vaelab_stamp", stamp, use_cache=True, replace=True)
OmegaConf.register_new_resolver("vaelab_run_dir", run_dir, use_cache=True, replace=True)


def task(cfg: DictConfig) -> float | None:
    """Runs one job in the directory that Hydra chose; a failed job of a sweep is recorded and the sweep goes on."""
    if TRACEBACKS:
        return _job(cfg)
    os.environ.pop(
        "HYDRA_FULL_ERROR", None
    )  # `run_main` set it for itself; processes that a job starts must not see it
    try:
        return _job(cfg)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = "1"


def _job(cfg: DictConfig) -> float | None:
    hydra_cfg = HydraConfig.get()
    directory = Path(os.path.relpath(hydra_cfg.runtime.output_dir))
    if directory.parts[:1] == ("..",):
        directory = directory.resolve()
    overrides = list(hydra_cfg.overrides.task)
    if hydra_cfg.mode != RunMode.MULTIRUN:
        check_shared_directory(hydra_cfg.overrides.hydra)
        with no_empty_directory(directory):
            from vaelab.experiment import run

            try:
                return run(cfg, directory=directory, overrides=overrides)
            except Exception as error:
                sentence = str(error) if isinstance(error, UserError) else of_the_machine(error)
                if not sentence:
                    raise
                raise Stopped(f"error: {sentence}", 1) from error  # past Hydra, which would add a line of its own
    print(f"\n[job {hydra_cfg.job.num}] {' '.join(overrides)}", flush=True)
    try:
        if str(cfg.trainer.devices) != "1":
            return run_in_own_process(overrides, directory)
        from vaelab.experiment import run

        return run(cfg, directory=directory, overrides=overrides)
    except Exception as error:
        message = str(error) if isinstance(error, UserError) else of_the_machine(error) or traceback.format_exc()
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


def check_shared_directory(overrides: Sequence[str]) -> None:
    """Stops processes that torchrun or SLURM started and that would each choose a directory of its own."""
    started = "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    if started and not any(o.startswith("hydra.run.dir=") for o in overrides):
        raise Stopped("error: several processes need one directory between them; add hydra.run.dir=outputs/NAME", 1)


def run_in_own_process(overrides: Sequence[str], directory: Path) -> float:
    """Runs a job on several devices: its processes repeat the command line, so it must be a command of its own.

    Returns:
        The best of what its `monitor` watches.

    Raises:
        UserError: if it failed.
        Stopped: if a signal, which it was passed on, ended it.
    """
    command = [sys.executable, "-m", "vaelab.train", *overrides, f"hydra.run.dir='{directory}'"]
    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while (code := process.poll()) is None:
            try:
                process.wait()
            except KeyboardInterrupt:  # the terminal has told the job too; let it save its state
                continue
    finally:
        signal.signal(signal.SIGTERM, before)
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise Stopped(f"the sweep was stopped in job {directory}", code)
    if code:
        raise UserError(f"the job's process ended with exit code {code}")
    figure, metrics = finished(directory)
    return metrics.get(figure, float("nan"))


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


def run_main(
    main: Callable[[], object],
    *,
    config: str = "train",
    interrupted: str = "interrupted before training began; nothing was saved",
) -> None:
    """Runs a Hydra main; answers a user's mistake with one sentence and exit code 1, signals with 128 + their number.

    With HYDRA_FULL_ERROR=1 every error keeps its traceback.

    Args:
        main: the Hydra main.
        config: name of its configuration.
        interrupted: what to say to a Ctrl-C that nobody else has answered.
    """
    if TRACEBACKS:
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
        fail(interrupted, 130)
    except (HydraException, OmegaConfBaseException) as error:
        fail(f"error: {explain(error, sys.argv[1:], config)}")
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        if not (sentence := of_the_machine(error)):
            raise
        fail(f"error: {sentence}")
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Prints one sentence and ends the process."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # once, not from every device
        print(message, file=sys.stderr)
    raise SystemExit(exit_code)
