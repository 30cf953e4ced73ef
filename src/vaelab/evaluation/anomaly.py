"""Whether the model finds what it has not been trained on less probable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vaelab.checks import positive_int
from vaelab.data import Images
from vaelab.data.sources import Source
from vaelab.evaluation.base import Evaluation, Figure, Subject, no_figure
from vaelab.evaluation.drawings import draw_table
from vaelab.evaluation.images import given, in_support, levels, told, unknown_classes, value_range
from vaelab.metrics.anomaly import auroc, average_precision
from vaelab.metrics.compression import png_bits
from vaelab.metrics.importance import importance_bound
from vaelab.metrics.reconstruction import squared_error
from vaelab.models import M2
from vaelab.networks import GaussianNoise, Masking, SaltAndPepper

SCORES = ("reconstruction_error", "reconstruction_probability", "elbo", "bound", "complexity")
Labelled = tuple[Tensor, Tensor]


class Anomaly(Evaluation):
    """AUROC and average precision of five scores, larger for what is less normal.

    - `reconstruction_error`: the squared error of E[x|z] at the posterior mean;
    - `reconstruction_probability`: -E_q[log p(x|z)] (An & Cho 2015, algorithm 4);
    - `elbo`: -ELBO, and `bound`: -log p(x) by the k-sample bound;
    - `complexity`: -ELBO / log 2 - L(x), L(x) the bits of the image's PNG file (Serra et al. 2020, equation 1, whose
      log p(x) has a bound in its place here).

    Normal are images of the split whose classes are in the training set. A run that was trained without some classes
    (data.only_classes, data.without_classes) has those as anomalies, each by itself and all together. Every run has
    corrupted copies of its normal images, and with `other` those of another data set.

    Args:
        draws: of z for every image in the ELBO.
        k: draws of z for every image in the bound; 0 leaves it out.
        images: normal images, and anomalies of each kind, at the most.
        other: another data set, of which the test images are taken, brought to the shape of this one's.

    Raises:
        ValueError: for a number below 1 (`k`: below 0).
    """

    def __init__(self, *, draws: int = 10, k: int = 50, images: int = 1000, other: Source | None = None) -> None:
        self.draws = positive_int("draws", draws)
        if not isinstance(k, int) or isinstance(k, bool) or k < 0:
            raise ValueError(f"k must be a whole number of at least 1, or 0 to leave the bound out, but is {k}")
        self.k = k
        self.images = positive_int("images", images)
        self.other = other

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `anomaly/KIND/SCORE/auroc` and `.../average_precision`, and saves `anomaly_auroc.png`.

        Raises:
            ValueError: if there are too few normal images, or those of `other` do not fit the model.
        """
        x, y = subject.splits[subject.split].batch(slice(None))
        unknown = unknown_classes(subject, y)
        normal = self._some(subject, x, y, torch.isin(y, torch.tensor(unknown), invert=True) if unknown else None)
        if len(normal[0]) < 2:
            raise ValueError(f"at least 2 images of known classes are needed, but there are {len(normal[0])}")
        reasons: dict[str, str] = {}
        reference = self._scores(subject, *normal, "normal", reasons)
        figures = [no_figure(f"anomaly/{name}", why) for name, why in reasons.items()]

        def compared(kind: str, found: dict[str, Tensor], **protocol: Any) -> list[Figure]:
            return figures_of(f"anomaly/{kind}", reference, found, {**protocol, **self._protocol(subject)})

        if unknown and subject.model.condition.dim and not isinstance(subject.model, M2):
            why = "this model is told the class, which was never trained; leave its condition out"
            figures.append(no_figure("anomaly/classes", why))
        elif not unknown:
            figures.append(no_figure("anomaly/classes", no_held_out(subject, y)))
        else:
            found = {}
            for label in unknown:
                part = self._some(subject, x, y, y == label)
                if len(part[0]) < 2:
                    figures.append(no_figure(f"anomaly/class_{label}", "one image of this class is too few; take more"))
                    continue
                found[label] = self._scores(subject, *part, f"class {label}", reasons)
                figures += compared(f"class_{label}", found[label], anomalies=f"class {label}")
            figures += mean_over_classes(figures, [f"class_{label}" for label in found], list(reference))
        for kind, part in self._kinds(subject, normal):
            what = getattr(self.other, "name", self.other.origin) if kind == "other" and self.other else kind
            figures += compared(kind, self._scores(subject, *part, kind, reasons), anomalies=what)
        draw(subject.folder / "anomaly_auroc.png", figures)
        return figures

    def _protocol(self, subject: Subject) -> dict[str, Any]:
        return {"draws": self.draws, "k": self.k, **given(subject.model)}

    def _some(self, subject: Subject, x: Tensor, y: Tensor, which: Tensor | None) -> Labelled:
        """Returns a fixed choice of at most `images` of those images that `which` names, or of all."""
        index = torch.arange(len(x)) if which is None else which.nonzero().squeeze(1)
        number = min(self.images, subject.limit or self.images)
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:number]
        return x[index[order]], y[index[order]]

    def _kinds(self, subject: Subject, normal: Labelled) -> Iterator[tuple[str, Labelled]]:
        """Yields anomalies that are made of normal images, all of them such as the data could hold, and other data."""
        x, y = normal
        low, high = value_range(subject)
        kinds = {
            "noise": low + (high - low) * torch.rand_like(x),
            "inverted": low + high - x,
            "gaussian": GaussianNoise(std=0.3 * (high - low)).corrupt(x),
            "masking": Masking(probability=0.3).corrupt(x),
            "salt_and_pepper": SaltAndPepper(probability=0.2, low=low, high=high).corrupt(x),
        }
        for kind, images in kinds.items():
            yield kind, (in_support(subject, images), y)
        if self.other is not None:
            yield "other", self._other(subject, self.other, y)

    def _other(self, subject: Subject, source: Source, y: Tensor) -> Labelled:
        """Returns images of another data set, brought to the form of this one's; they get the labels of normal ones."""
        train, test = source.load()
        images = train if test is None else test
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: len(y)]
        images = shape_matched(images.subset(order), subject.model.x_shape, source.origin)
        if subject.support == "binary" and images.support != "binary":
            threshold = subject.protocol.get("binarize") == "threshold"
            images = images.binarized("threshold" if threshold else "static", seed=subject.seed)
        if images.support == "real" and subject.support != "real":
            raise ValueError(f"other: {source.origin} has values outside [0, 1], which this model cannot score")
        return in_support(subject, images.batch(slice(None))[0]), y[: len(images)]

    def _scores(
        self, subject: Subject, x: Tensor, y: Tensor, description: str, reasons: dict[str, str]
    ) -> dict[str, Tensor]:
        """Returns the scores (N,) by name, and adds to `reasons` why there are not more."""
        model = subject.model
        parts: dict[str, list[Tensor]] = {}
        grey = levels(subject)
        for part, labels in subject.batches(x, told(model, y), max(1, 2000 // self.draws), description):
            terms = model(part, labels, num_samples=self.draws)
            found = {
                "reconstruction_error": squared_error(part, model.reconstruct(part, labels)) * part[0].numel(),
                "reconstruction_probability": -terms.log_px.mean(0),
            }
            if not terms.is_bound:
                for name in SCORES[2:]:
                    reasons.setdefault(name, "a deterministic code has no density, and no bound on log p(x)")
            else:
                found["elbo"] = -terms.elbo.mean(0)
                if grey is None or grey > 256:
                    reasons.setdefault("complexity", "PNG stores grey levels, not floating-point values")
                else:
                    found["complexity"] = found["elbo"].cpu().double() / math.log(2) - png_bits(part, levels=grey)
                if self.k and "bound" not in reasons:
                    try:
                        found["bound"] = -importance_bound(model, part, labels, k=self.k)
                    except ValueError as error:
                        reasons["bound"] = str(error)
            for name, values in found.items():
                parts.setdefault(name, []).append(values.cpu().double())
        return {name: torch.cat(parts[name]) for name in SCORES if name in parts}


def no_held_out(subject: Subject, y: Tensor) -> str:
    """Says why none of the labels y is of a class that the run was not trained on."""
    if y.is_floating_point():
        return "the images have attributes instead of class labels"
    if subject.split == "train":
        return "these are the images that were trained on; choose split=test or val"
    return "all classes of this data were trained; data.without_classes=[9] leaves one out of the training images"


def shape_matched(images: Images, shape: Sequence[int], origin: str) -> Images:
    """Returns images of another shape (C, H, W): enlarged or reduced, grey repeated over colours or colours averaged.

    Raises:
        ValueError: for values outside [0, 1], which have no grey levels to average.
    """
    channels, height, width = shape
    if images.shape == (channels, height, width):
        return images
    if images.support == "real":
        raise ValueError(
            f"other: {origin} has images of {images.shape} with values outside [0, 1], not of {tuple(shape)}"
        )
    x = images.batch(slice(None))[0]
    if channels != x.shape[1]:
        x = x.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    x = functional.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
    return Images(x=(x * 255).round().byte(), y=images.y)


def figures_of(
    name: str, normal: dict[str, Tensor], anomalous: dict[str, Tensor], protocol: dict[str, Any]
) -> list[Figure]:
    """Returns AUROC and average precision of every score that both have."""
    figures = []
    for score in (score for score in normal if score in anomalous):
        x, y = normal[score], anomalous[score]
        share = round(len(y) / (len(x) + len(y)), 3)
        shared = {"normal": len(x), "anomalous": len(y), **protocol}
        figures += [
            Figure(f"{name}/{score}/auroc", *auroc(x, y), "", shared),
            Figure(f"{name}/{score}/average_precision", *average_precision(x, y), "", {**shared, "chance": share}),
        ]
    return figures


def draw(path: Path, figures: list[Figure]) -> None:
    """Draws the AUROC of every score for every kind of anomalies."""
    found = {tuple(figure.name.split("/")[1:3]): figure.value for figure in figures if figure.name.endswith("/auroc")}
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    scores = [score for score in SCORES if any(score == other for _, other in found)]
    values = np.array([[found.get((kind, score)) for score in scores] for kind in kinds], dtype=float)
    draw_table(path, values, kinds, scores, "AUROC; 0.5 is chance")


def mean_over_classes(figures: list[Figure], kinds: list[str], scores: list[str]) -> list[Figure]:
    """Returns the means of AUROC and average precision over kinds of anomalies, with the standard error over them."""
    means = []
    for score in (f"{score}/{name}" for score in scores for name in ("auroc", "average_precision")):
        names = {f"anomaly/{kind}/{score}" for kind in kinds}
        chosen = [figure for figure in figures if figure.name in names]
        if not chosen:
            continue
        values = torch.tensor([figure.value for figure in chosen], dtype=torch.float64)
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
        first, *others = (figure.protocol for figure in chosen)
        same = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
        protocol = {**same, "anomalies": f"{len(values)} classes", "error": "over classes"}
        means.append(Figure(f"anomaly/classes/{score}", float(values.mean()), error, "", protocol))
    return means
