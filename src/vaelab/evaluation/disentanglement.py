"""Whether single latent dimensions follow single factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vaelab.checks import positive_int
from vaelab.evaluation.base import Evaluation, Figure, Subject, bootstrap_error, mean_figure, no_figure
from vaelab.evaluation.drawings import draw_table
from vaelab.evaluation.latents import binomial_error, codes
from vaelab.metrics import disentanglement as metrics
from vaelab.metrics.disentanglement import FixedFactor

DRAWN = 50  # latent dimensions, at the most
DCI_PARTS = 4  # disjoint parts of the images, for its standard error
TOO_FEW = f"too few images for a standard error over {DCI_PARTS} parts of them; take more, for sprites by data.size"
NAMES = (
    "mig",
    "dci_disentanglement",
    "dci_completeness",
    "dci_informativeness",
    "sap",
    "factor_vae_score",
    "beta_vae_score",
    "modularity",
)


class Disentanglement(Evaluation):
    """MIG, DCI, SAP, FactorVAE score, beta-VAE score and modularity of the posterior means, for known factors.

    Standard errors: over votes (FactorVAE and beta-VAE score), over images (informativeness), by bootstrap over images
    (MIG, SAP and modularity), over disjoint parts of the images (DCI). All of them leave out the variance between
    training runs, which is usually much larger (Locatello et al. 2019).

    Args:
        images: images of the split, at the most.
        bins: of every latent dimension, for mutual information.
        votes: of the FactorVAE and beta-VAE score, to learn from, and as many to score.
        size: images (or pairs) of a vote.
        max_dimensions: more latent dimensions than so many are refused.
        resamples: bootstrap resamples.

    Raises:
        ValueError: for a number below 1 (2 for images, bins, size and resamples).
    """

    def __init__(
        self,
        *,
        images: int = 10000,
        bins: int = 20,
        votes: int = 800,
        size: int = 64,
        max_dimensions: int = 256,
        resamples: int = 20,
    ) -> None:
        self.images = positive_int("images", images)
        self.bins = positive_int("bins", bins)
        self.votes = positive_int("votes", votes)
        self.size = positive_int("size", size)
        self.max_dimensions = positive_int("max_dimensions", max_dimensions)
        self.resamples = positive_int("resamples", resamples)
        for name, value in (("images", images), ("bins", bins), ("size", size), ("resamples", resamples)):
            if value < 2:
                raise ValueError(f"{name} must be at least 2, but is {value}")

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns a figure for every score, and saves `disentanglement.png`: what every dimension knows of a factor."""
        names = [f"disentanglement/{name}" for name in NAMES]
        images = subject.chosen(self.images)
        factors = {name: v.cpu().numpy() for name, v in images.factors.items() if len(v.unique()) > 1}
        if not factors:
            return [no_figure(name, "the factors of this data are not known; data=sprites has some") for name in names]
        if (dimensions := int(np.prod(subject.model.latent_shape))) > self.max_dimensions:
            why = (
                f"{dimensions} latent dimensions are too many; disentanglement.max_dimensions={dimensions} allows them"
            )
            return [no_figure(name, why) for name in names]
        try:
            z = codes(subject, images).double().numpy()
            v = np.stack(list(factors.values()), 1)
            metrics.check(z, v, dims=2, factors_at_least=2)
        except ValueError as error:
            return [no_figure(name, str(error)) for name in names]
        protocol = {"images": len(z), "factors": " ".join(factors), "dimensions": z.shape[1]}
        if z.shape[1] <= DRAWN:
            draw_table(
                subject.folder / "disentanglement.png",
                metrics.shared_information(z, v, bins=self.bins),
                [f"dimension_{j}" for j in range(z.shape[1])],
                list(factors),
                "share of a factor's entropy that a dimension holds",
            )
        figures: list[Figure] = []
        scores = (self._mig, self._dci, self._sap, self._factor_vae, self._beta_vae, self._modularity)
        measured = {self._dci: names[1:4], self._mig: names[:1]}
        measured |= dict(zip(scores[2:], ([name] for name in names[4:]), strict=True))
        for score in subject.progress(scores, "disentanglement", len(scores)):
            try:
                found = score(z, v, subject.seed)
            except ValueError as error:
                found = [no_figure(name, str(error)) for name in measured[score]]
            figures += [replace(f, protocol={**f.protocol, **protocol}) if f.value is not None else f for f in found]
        return figures

    def _mig(self, z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        error = self._bootstrap(lambda z, v: metrics.mig(z, v, bins=self.bins), z, v, seed)
        return [Figure("disentanglement/mig", metrics.mig(z, v, bins=self.bins), error, protocol={"bins": self.bins})]

    def _modularity(self, z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        error = self._bootstrap(lambda z, v: metrics.modularity(z, v, bins=self.bins), z, v, seed)
        value = metrics.modularity(z, v, bins=self.bins)
        return [Figure("disentanglement/modularity", value, error, protocol={"bins": self.bins})]

    def _dci(self, z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        found = metrics.dci(z, v, seed=seed)
        informativeness = mean_figure("disentanglement/dci_informativeness", torch.from_numpy(found.correct), unit="")
        informativeness = replace(informativeness, protocol={"scored_on": len(found.correct)})
        return [
            *(
                Figure(
                    f"disentanglement/dci_{name}",
                    getattr(found, name),
                    error,
                    protocol={} if error is None else {"error": f"over {DCI_PARTS} parts of the images"},
                    note=TOO_FEW if error is None else "",
                )
                for name, error in self._dci_errors(z, v, seed).items()
            ),
            informativeness,
        ]

    def _dci_errors(self, z: np.ndarray, v: np.ndarray, seed: int) -> dict[str, float | None]:
        """Returns standard errors over disjoint parts: of resamples, a forest would be scored on what it has seen."""
        try:
            parts = [metrics.dci(z[i::DCI_PARTS], v[i::DCI_PARTS], seed=seed) for i in range(DCI_PARTS)]
        except ValueError:  # too few images for as many parts
            return {"disentanglement": None, "completeness": None}

        def error(values: list[float]) -> float:
            return float(np.std(values, ddof=1) / math.sqrt(DCI_PARTS))

        return {
            "disentanglement": error([part.disentanglement for part in parts]),
            "completeness": error([part.completeness for part in parts]),
        }

    def _sap(self, z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        return [Figure("disentanglement/sap", metrics.sap(z, v), self._bootstrap(metrics.sap, z, v, seed))]

    def _factor_vae(self, z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        return self._votes("factor_vae_score", metrics.factor_vae_score, z, v, seed)

    def _beta_vae(self, z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        return self._votes("beta_vae_score", metrics.beta_vae_score, z, v, seed)

    def _votes(self, name: str, score: Callable[..., float], z: np.ndarray, v: np.ndarray, seed: int) -> list[Figure]:
        sampler = FixedFactor(z, v, seed=seed)
        share = score(sampler, sampler.scale, v.shape[1], votes=self.votes, size=self.size, seed=seed)
        protocol = {"votes": self.votes, "size": self.size, "chance": round(1 / v.shape[1], 3)}
        return [Figure(f"disentanglement/{name}", share, binomial_error(share, self.votes), protocol=protocol)]

    def _bootstrap(
        self, score: Callable[[np.ndarray, np.ndarray], float], z: np.ndarray, v: np.ndarray, seed: int
    ) -> float:
        """Returns the standard error of a score over resamples of the images."""

        def of(index: Tensor) -> float:
            return score(z[index.numpy()], v[index.numpy()])

        return bootstrap_error(of, len(z), resamples=self.resamples, seed=seed)
