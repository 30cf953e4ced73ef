"""How probable the model finds data that it has not seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaelab.checks import positive_int
from vaelab.evaluation.base import Evaluation, Figure, Subject, mean_figure, no_figure
from vaelab.evaluation.drawings import draw_histograms
from vaelab.evaluation.images import given, save_rows, value_range
from vaelab.likelihoods import bits_per_dim
from vaelab.metrics.importance import images_at_once, importance_bound
from vaelab.models import Model

COLUMNS = 12


class Likelihood(Evaluation):
    """The ELBO and the k-sample bound on log p(x), in nats per image, and bits per dimension of the latter.

    Args:
        k: draws of z for every image in the k-sample bound.
        elbo_samples: draws of z for every image in the ELBO.
        rows: draws decoded at once; memory grows with it, the figures do not change. None for what suits the device.

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(self, *, k: int = 5000, elbo_samples: int = 10, rows: int | None = None) -> None:
        self.k = positive_int("k", k)
        self.elbo_samples = positive_int("elbo_samples", elbo_samples)
        self.rows = None if rows is None else positive_int("rows", rows)

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `likelihood/elbo`, its two terms, `likelihood/bound` and `likelihood/bits_per_dim`.

        Saves `likelihood.png`, their distribution, and `likelihood_images.png`: the least and the most probable images.
        """
        model = subject.model
        x, y = subject.images()
        told = given(model)
        terms = [
            (t.log_px.mean(0).cpu(), t.kl.mean(0).cpu(), t.is_bound)
            for part, labels in subject.batches(x, y, max(1, (self.rows or 1000) // self.elbo_samples), "ELBO")
            for t in (model(part, labels, num_samples=self.elbo_samples),)
        ]
        log_px, kl = (torch.cat([term[i] for term in terms]) for i in (0, 1))
        names = ("likelihood/elbo", "likelihood/bound", "likelihood/bits_per_dim")
        reconstruction = mean_figure("likelihood/reconstruction", log_px, draws=self.elbo_samples, **told)
        if not terms[0][2]:
            why = "a deterministic code has no density, and its reconstruction is no bound on log p(x)"
            return [reconstruction, *(no_figure(name, why) for name in ("likelihood/kl", *names))]
        figures = [
            mean_figure(names[0], log_px - kl, draws=self.elbo_samples, **told),
            reconstruction,
            mean_figure("likelihood/kl", kl, draws=self.elbo_samples, **told),
        ]
        try:
            bounds = subject.each(x, y, images_at_once(self.k, self.rows), *bound_of(model, self.k, self.rows))
        except ValueError as error:
            return [*figures, *(no_figure(name, str(error)) for name in names[1:])]
        bound = mean_figure(names[1], bounds, k=self.k, **told)
        curves = {"ELBO": log_px - kl, f"bound, k = {self.k}": bounds}
        draw_histograms(subject.folder / "likelihood.png", curves, "nats per image")
        order = bounds.argsort()
        rows = [("least probable", x[order[:COLUMNS]]), ("most probable", x[order.flip(0)[:COLUMNS]])]
        save_rows(subject.folder / "likelihood_images.png", rows, value_range(subject))
        if subject.support not in model.likelihood.probability_of:
            why = f"log p(x) of {subject.support} data under this likelihood is no log-probability"
            return [*figures, bound, no_figure(names[2], why)]
        bits = mean_figure(names[2], bits_per_dim(bounds, model.x_shape), unit="bits", k=self.k, **told)
        return [*figures, bound, bits]


def bound_of(model: Model, k: int, rows: int | None = None) -> tuple[str, Callable[[Tensor, Tensor | None], Tensor]]:
    """Returns the k-sample bound as what `Subject.each` computes: its description, and a function of a batch."""
    return f"bound, k = {k}", lambda x, y: importance_bound(model, x, y, k=k, rows=rows)
