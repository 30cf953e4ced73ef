"""Objectives: the only place that weighs terms, follows a schedule and reduces the batch."""

from vaelab.objectives.base import Objective
from vaelab.objectives.elbo import ELBO

__all__ = ["ELBO", "Objective"]
