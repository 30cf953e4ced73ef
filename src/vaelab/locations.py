"""Where the configuration is, and where runs go."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

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
    path = Path(str(resume)).expanduser()
    return str(path.parent.parent if path.suffix == ".ckpt" else path)
