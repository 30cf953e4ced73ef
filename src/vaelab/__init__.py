"""vaelab: an experiment framework for variational autoencoders.

`load(run)` rebuilds a trained model from its run directory or checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaelab.experiment import load as load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import vaelab` (and with it --help and shell completion) does not import torch.
    if name == "load":
        from vaelab.experiment import load

        return load
    raise AttributeError(f"module 'vaelab' has no attribute {name!r}")
