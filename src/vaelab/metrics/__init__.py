"""Metrics: what is reported."""

from vaelab.metrics.probe import probe_accuracy
from vaelab.metrics.window import NonFiniteError, Window, weighted_means

__all__ = ["NonFiniteError", "Window", "probe_accuracy", "weighted_means"]
