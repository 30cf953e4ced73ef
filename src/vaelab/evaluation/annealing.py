"""How probable the model finds data that it has not seen, measured without leaning on its encoder."""

from __future__ import annotations

import torch

from vaelab.checks import one_of, positive_int
from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.metrics.annealed_importance import STARTS, annealed_weights, bidirectional_bounds, flat, log_mean
from vaelab.metrics.importance import importance_bound


class Annealing(Evaluation):
    """Annealed importance sampling of log p(x), what it gains on the k-sample bound, and a bound on its error.

    Args:
        limit: images; annealing takes seconds for each of them.
        chains: independent chains of every image.
        steps: distributions between the start and p(z|x): more are more exact.
        leapfrogs: gradient steps of one Hamiltonian proposal.
        start: posterior or prior, where the chains start.
        k: draws of the k-sample bound on the same images.
        rows: chains of all images together that are decoded at once, at least those of one image; memory.

    Raises:
        ValueError: for a number below 1, fewer than 2 images, or an unknown start.
    """

    def __init__(
        self,
        *,
        limit: int = 100,
        chains: int = 16,
        steps: int = 500,
        leapfrogs: int = 10,
        start: str = "posterior",
        k: int = 5000,
        rows: int = 800,
    ) -> None:
        if positive_int("limit", limit) < 2:
            raise ValueError("limit must be at least 2 images, of which there is a standard error")
        self.limit = limit
        self.chains = positive_int("chains", chains)
        self.steps = positive_int("steps", steps)
        self.leapfrogs = positive_int("leapfrogs", leapfrogs)
        self.start = one_of("start", start, STARTS)
        self.k = positive_int("k", k)
        self.rows = positive_int("rows", rows)

    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `annealing/log_px`, `annealing/gain`, `annealing/effective_chains` and `annealing/gap`."""
        names = [f"annealing/{name}" for name in ("log_px", "gain", "effective_chains", "gap")]
        try:
            flat(subject.model)
        except ValueError as error:
            return [no_figure(name, str(error)) for name in names]
        x, y = subject.images(limit=min(self.limit, subject.limit or self.limit))
        log_weights, bounds, gaps = [], [], []
        size = max(1, self.rows // self.chains)
        options = {"chains": self.chains, "steps": self.steps, "leapfrogs": self.leapfrogs, "start": self.start}
        for i in range(0, len(x), size):
            part, labels = (t[i : i + size].to(subject.model.device) for t in (x, y))
