"""Metrics: what is reported."""

from vaelab.metrics.window import NonFiniteError, Window, weighted_means

__all__ = ["NonFiniteError", "Window", "weighted_means"]
