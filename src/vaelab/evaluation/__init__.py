"""Evaluation: what a finished run is worth, each part by itself."""

from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.evaluation.likelihood import Likelihood

__all__ = ["Evaluation", "Figure", "Likelihood", "Subject", "mean_figure", "no_figure"]
