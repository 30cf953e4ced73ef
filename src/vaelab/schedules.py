"""Schedules: pure functions of the number of batches seen, for KL weights and learning rates alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from vaelab.checks import at_least_zero, positive, positive_int


class Schedule(ABC):
    """A factor that depends on nothing but the number of batches seen."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Returns the factor for the batch after `step` batches."""


class Constant(Schedule):
    """w(step) = value."""

    def __init__(self, *, value: float = 1.0) -> None:
        self.value = at_least_zero("value", value)

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
        self.steps = positive("epochs", epochs) * positive_int("steps_per_epoch", steps_per_epoch)
        self.start, self.end = start, end

    def __call__(self, step: int) -> float:
        """Returns the ramp's value."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


class Sigmoid(Schedule):
    """w(step) = start + (end - start) * [1 + tanh(k (t - 1/2) / 2) / tanh(k / 4)] / 2, with t = min(1, step / length).

    The logistic function of steepness k (Bowman et al. 2016). Deviation from the paper: it is stretched, to start at
    `start` and end at `end` exactly.

    Args:
        epochs: length of the ramp; a fraction will do.
        steps_per_epoch: batches in an epoch.
        steepness: k; a small one gives a straight ramp.
        start: factor at step 0.
        end: factor after the ramp.

    Raises:
        ValueError: for a length or a steepness that is not above 0.
    """

    def __init__(
        self,
        *,
        epochs: float,
        steps_per_epoch: int,
        steepness: float = 10.0,
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        self.steps = positive("epochs", epochs) * positive_int("steps_per_epoch", steps_per_epoch)
        self.steepness = positive("steepness", steepness)
        self.start, self.end = start, end

    def __call__(self, step: int) -> float:
        """Returns the ramp's value."""
        t = min(1.0, step / self.steps)
        rise = math.tanh(self.steepness * (t - 0.5) / 2) / math.tanh(self.steepness / 4)
        return self.start + (self.end - self.start) * (1 + rise) / 2


class Cyclical(Schedule):
    """w(step) = start + (end - start) * min(1, r / ramp), with r in [0, 1) the position within the cycle.

    `cycles` equal cycles (Fu et al. 2019), each a linear ramp and a plateau; after the last one the factor stays at
    `end`.

    Args:
        epochs: length of all cycles together.
        steps_per_epoch: batches in an epoch.
        cycles: number of cycles.
        ramp: share of a cycle in which the factor rises, above 0 and at most 1.
        start: factor at the start of every cycle.
        end: factor on the plateaus.

    Raises:
        ValueError: for a length that is not above 0, fewer cycles than 1 or a `ramp` outside (0, 1].
    """

    def __init__(
        self,
        *,
        epochs: float,
        steps_per_epoch: int,
        cycles: int = 4,
        ramp: float = 0.5,
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        self.steps = positive("epochs", epochs) * positive_int("steps_per_epoch", steps_per_epoch)
        self.cycles = positive_int("cycles", cycles)
        if not 0 < ramp <= 1:
            raise ValueError(f"ramp must be above 0 and at most 1, but is {ramp!r}")
        self.ramp = ramp
        self.start, self.end = start, end

    def __call__(self, step: int) -> float:
        """Returns the factor."""
        if step >= self.steps:
            return self.end
        position = step * self.cycles % self.steps / self.steps
        return self.start + (self.end - self.start) * min(1.0, position / self.ramp)


class Cosine(Schedule):
    """A linear warm-up to 1, then w(step) = end + (1 - end) * (1 + cos(pi * t)) / 2 with t running from 0 to 1.

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
        positive_int("steps_per_epoch", steps_per_epoch)
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
        self.rate = positive("rate", rate)
        self.steps_per_epoch = positive_int("steps_per_epoch", steps_per_epoch)

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
        self.rate = positive("rate", rate)
        self.steps = positive("epochs", epochs) * positive_int("steps_per_epoch", steps_per_epoch)

    def __call__(self, step: int) -> float:
        """Returns the factor."""
        return self.rate ** math.floor(step / self.steps)
