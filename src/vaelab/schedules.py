"""Schedules: pure functions of the number of batches seen, for KL weights and learning rates alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from vaelab.checks import at_least_zero, positive


class Schedule(ABC):
    """A factor that depends on nothing but the number of batches seen."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Returns the factor for the batch after `step` batches."""


class Constant(Schedule):
    """w(step) = value."""

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        """Returns `value`."""
        return self.value


class Linear(Schedule):
    """w(step) = start + (end - start) * min(1, step / (epochs * steps_per_epoch)).

    Args:
        epochs: length of the ramp; a fraction will do.
        steps_per_epoch: batches in an epoch.
        start: factor at step 0.
        end: factor after the ramp.

    Raises:
        ValueError: for a length that is not above 0.
    """

    def __init__(self, *, epochs: float, steps_per_epoch: int, start: float = 0.0, end: float = 1.0) -> None:
        self.steps = positive("epochs", epochs) * steps_per_epoch
        self.start, self.end = start, end

    def __call__(self, step: int) -> float:
        """Returns the ramp's value."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


class Cosine(Schedule):
    """A linear warm-up from 0 to 1, then w(step) = end + (1 - end) * (1 + cos(pi * t)) / 2 with t running from 0 to 1.

    Args:
        epochs: length of warm-up and decay together.
        steps_per_epoch: batches in an epoch.
        warmup_epochs: length of the warm-up.
        end: factor at the end and after it.

    Raises:
        ValueError: for a warm-up that is not shorter than the whole.
    """

    def __init__(self, *, epochs: float, steps_per_epoch: int, warmup_epochs: float = 0.0, end: float = 0.0) -> None:
        positive("epochs", epochs), at_least_zero("warmup_epochs", warmup_epochs)
        if warmup_epochs >= epochs:
            raise ValueError(f"warmup_epochs ({warmup_epochs}) must be below epochs ({epochs})")
        self.steps, self.warmup = epochs * steps_per_epoch, warmup_epochs * steps_per_epoch
        self.end = end

    def __call__(self, step: int) -> float:
        """Returns the factor."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        t = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * t)) / 2


class Exponential(Schedule):
    """w(step) = rate^(step / steps_per_epoch): multiplied by `rate` every epoch, smoothly.

    Args:
        rate: factor per epoch, above 0.
        steps_per_epoch: batches in an epoch.

    Raises:
        ValueError: for a rate that is not above 0.
    """

    def __init__(self, *, rate: float, steps_per_epoch: int) -> None:
        self.rate, self.steps_per_epoch = positive("rate", rate), steps_per_epoch

    def __call__(self, step: int) -> float:
        """Returns the factor."""
        return self.rate ** (step / self.steps_per_epoch)


class Step(Schedule):
    """w(step) = rate^floor(step / (epochs * steps_per_epoch)): multiplied by `rate` every `epochs` epochs.

    Args:
        rate: factor at every drop, above 0.
        epochs: distance between drops.
        steps_per_epoch: batches in an epoch.

    Raises:
        ValueError: for a rate or a distance that is not above 0.
    """

    def __init__(self, *, rate: float, epochs: float, steps_per_epoch: int) -> None:
        self.rate, self.steps = positive("rate", rate), positive("epochs", epochs) * steps_per_epoch

    def __call__(self, step: int) -> float:
        """Returns the factor."""
        return self.rate ** math.floor(step / self.steps)
