"""How probable the model finds data that it has not seen, measured without leaning on its encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vaelab.checks import one_of, positive_int
from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.evaluation.likelihood import bound_of
from vaelab.metrics.annealed_importance import STARTS, annealed_weights, bidirectional_bounds, log_mean
from vaelab.metrics.importance import images_at_once


class Annealing(Evaluation):
    """Annealed importance sampling of log p(x): what it gains on the k-sample bound, and how far off it may be.

    Args:
        limit: images; annealing takes seconds for each of them.
        chains: independent chains of every image.
        steps: distributions between the start and p(z|x); the more, the tighter.
        leapfrogs: gradient steps of one Hamiltonian proposal.
        start: where the chains start: posterior or prior.
        simulated: images drawn from the model, between whose bounds from below and above log p(x) lies.
        k: draws of the k-sample bound on the same images.
        rows: chains, of all images together, that are decoded at once (at least those of one image): memory.

    Raises:
        ValueError: for a number below 1, fewer than 2 images, or an unknown start.
    """

    def __init__(
        self,
        *,
        limit: int = 100,
        chains: int = 16,
        steps: int = 200,
        leapfrogs: int = 10,
        start: str = "posterior",
        simulated: int = 50,
        k: int = 5000,
        rows: int = 800,
    ) -> None:
        self.limit, self.simulated = positive_int("limit", limit), positive_int("simulated", simulated)
        for name, value in (("limit", limit), ("simulated", simulated)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2 images, for a standard error, but is {value}")
        self.chains = positive_int("chains", chains)
        self.steps = positive_int("steps", steps)
        self.leapfrogs = positive_int("leapfrogs", leapfrogs)
        self.start = one_of("start", start, STARTS)
        self.k = positive_int("k", k)
        self.rows = positive_int("rows", rows)

    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `annealing/log_px`, `annealing/effective_chains`, `annealing/gain` and `annealing/gap`."""
        model, size = subject.model, max(1, self.rows // self.chains)
        protocol: dict[str, Any] = {
            "chains": self.chains,
            "steps": self.steps,
            "leapfrogs": self.leapfrogs,
            "start": self.start,
        }
        x, y = subject.images(self.limit)
        options = {**protocol, "progress": lambda b: subject.progress(b, "temperatures", len(b))}
        try:
            log_weights = subject.each(
                x, y, size, "annealing", lambda part, labels: annealed_weights(model, part, labels, **options).T
            ).T

            def gap(part: Tensor, labels: Tensor) -> Tensor:
                below, above = bidirectional_bounds(model, len(part), labels, **options)
                return above - below

            gaps = subject.each(x[: self.simulated], y[: self.simulated], size, "both ways", gap)
        except ValueError as error:
            return [
                no_figure(f"annealing/{name}", str(error)) for name in ("log_px", "effective_chains", "gain", "gap")
            ]
        log_px = log_mean(log_weights)
        effective = 1 / log_weights.softmax(0).square().sum(0)
        return [
            mean_figure("annealing/log_px", log_px, **protocol),
            mean_figure("annealing/effective_chains", effective, unit="", **protocol),
            self._gain(subject, x, y, log_px),
            mean_figure("annealing/gap", gaps, simulated=True, **protocol),
        ]

    def _gain(self, subject: Subject, x: Tensor, y: Tensor, log_px: Tensor) -> Figure:
        """Returns by how much annealing exceeds the k-sample bound of the same images."""
        name, size = "annealing/gain", images_at_once(self.k)
        try:
            bounds = subject.each(x, y, size, *bound_of(subject.model, self.k))
        except ValueError as error:
            return no_figure(name, str(error))
        return mean_figure(name, log_px - bounds, k=self.k, chains=self.chains, steps=self.steps)
