"""From a configuration to objects, to a trained model, to a report."""

from vaelab.experiment.load import load
from vaelab.experiment.run import run

__all__ = ["load", "run"]
