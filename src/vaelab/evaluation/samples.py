"""How good, how diverse and how new samples from the model's own prior are, beside real images as the floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaelab.checks import one_of, positive_int
from vaelab.data import Images
from vaelab.evaluation.base import Evaluation, Figure, Subject, bootstrap_error, mean_figure, no_figure
from vaelab.evaluation.drawings import draw_shares
from vaelab.evaluation.images import given, save_rows, unknown_classes, value_range
from vaelab.metrics.anomaly import auroc
from vaelab.metrics.features import FeatureNetwork, feature_network
from vaelab.metrics.inception import InceptionFeatures
from vaelab.metrics.samples import (
    class_shares,
    entropy,
    frechet_distance,
    frechet_error,
    kernel_distance,
    manifold,
    nearest,
)
from vaelab.models import M2

COLUMNS = 12
ROWS = 10_000  # training images that are compared at once
X = ("auto", "drawn", "mean")
FEATURES = ("own", "inception")


class Samples(Evaluation):
    """FID, KID, precision, recall, density, coverage, classes and nearest training images of samples.

    Figures that end in `_floor` are those of as many training images in the place of the samples: what a perfect model
    would reach. Features come from a small classifier that is trained in place on the run's own training images, so
    that FID and KID compare between runs with the same `features` key in the protocol, and with nothing else.
    `features=inception` takes those of an ImageNet classifier in their place, for natural images.

    Args:
        features: `own`, or `inception` where torchvision's weights can be had.
        images: samples, and as many test images, at the most.
        x: what a sample is: `drawn` from p(x|z), its `mean` E[x|z], or `auto`: drawn where the likelihood gives such
            data a probability, so that samples and data are of one kind, and the mean otherwise.
        k: which neighbour gives the radius of a ball.
        subsets: of KID.
        neighbours: how many samples and test images are compared with all training images.
        steps: batches by which the feature network is trained.
        training_images: images that it is trained on at the most.
        cache: folder where feature networks are kept for other runs; None is the run's own.

    Raises:
        ValueError: for a number below 1 or an unknown `x`.
    """

    def __init__(
        self,
        *,
        features: str = "own",
        images: int = 5000,
        x: str = "auto",
        k: int = 5,
        subsets: int = 10,
        neighbours: int = 1000,
        steps: int = 500,
        training_images: int = 20_000,
        cache: str | None = None,
    ) -> None:
        self.features = one_of("features", features, FEATURES)
        self.images = positive_int("images", images)
        self.x = one_of("x", x, X)
        self.k = positive_int("k", k)
        self.subsets = positive_int("subsets", subsets)
        self.neighbours = positive_int("neighbours", neighbours)
        self.steps = positive_int("steps", steps)
        self.training_images = positive_int("training_images", training_images)
        self.cache = cache

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `samples/...` and saves `samples_nearest.png`, samples above their nearest training images.

        Saves `samples_classes.png`, too: how many are of each class.

        Raises:
            ValueError: if there are too few images, or they are those of the training set.
        """
        if subject.split == "train":
            raise ValueError("samples are compared with images that were not trained on; choose split=test or val")
        inception = InceptionFeatures(subject.model.device) if self.features == "inception" else None
        test, test_y = self._real(subject)
        train = subject.splits["train"]
        number = min(len(test), len(train))
        least = max(2 * self.subsets, self.k + 1)
        if number < least:
            raise ValueError(
                f"k={self.k} and subsets={self.subsets} need at least {least} images, but there are {number}"
            )
        test, test_y = test[:number], test_y[:number]
        # The floor's images are none that the feature network learns from, unless there are too few to spare.
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        some, spare = order[-number:], len(train) - number
        learned = order[: min(self.training_images, spare if spare >= number else len(train))]
        try:
            floor, labels = train.batch(some)
            samples, how = self._drawn(subject, labels)
        except (ValueError, NotImplementedError) as error:
            return [no_figure("samples", str(error))]
        with torch.enable_grad():
            network, key = feature_network(
                *train.batch(learned),
                steps=self.steps,
                device=subject.model.device,
                folder=subject.folder if self.cache is None else Path(self.cache),
                progress=subject.progress(range(self.steps), "feature network", self.steps),
            )
        low, high = value_range(subject)

        def read_by(images: Tensor) -> tuple[Tensor, Tensor]:
            features, logits = network.read(images)
            return (features if inception is None else inception.embed((images - low) / (high - low))), logits

        protocol = {"x": how, "features": key if inception is None else "torchvision inception", **given(subject.model)}
        read = {"": read_by(samples), "_floor": read_by(floor)}
        real, real_logits = read_by(test)
        figures = [figure for end, (z, _) in read.items() for figure in self._distances(end, real, z, protocol)]
        scores = {end: logits for end, (_, logits) in read.items()}
        figures += self._classes(scores, real_logits, test_y, network, subject.folder, protocol)
        return [*figures, *self._neighbours(subject, samples, test, train, {"x": how, **given(subject.model)})]

    def _real(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """Returns the images that samples are compared with, none of a class that the run was not trained on."""
        x, y = subject.images(self.images)
        unknown = unknown_classes(subject, y)
        known = torch.isin(y, torch.tensor(unknown), invert=True) if unknown else torch.ones(len(x), dtype=torch.bool)
        return x[known], y[known]

    def _drawn(self, subject: Subject, labels: Tensor) -> tuple[Tensor, str]:
        """Returns as many samples as there are labels, those of training images, and what kind they are of."""
        model = subject.model
        proper = subject.support in model.likelihood.probability_of
        how = ("drawn" if proper else "mean") if self.x == "auto" else self.x
        # A conditional model is given the labels of training images, unless some of those are hidden.
        told = bool(model.condition.dim) and bool((labels >= 0).all() or labels.is_floating_point())
        context = labels.to(model.device) if told and not isinstance(model, M2) else None
        parts = []
        for start in subject.progress(range(0, len(labels), 500), "samples", -(-len(labels) // 500)):
            part = None if context is None else context[start : start + 500]
            number = min(500, len(labels) - start)
            parts.append(model.sample(number, part, mean=how == "mean", seed=subject.seed + start).cpu())
        return torch.cat(parts).float(), how

    def _distances(self, end: str, real: Tensor, z: Tensor, protocol: dict[str, Any]) -> list[Figure]:
        """Returns what compares features of samples, or of training images, with those of test images."""
        shared = {"images": len(z), **protocol}
        fid = frechet_distance(real, z)
        kid, error = kernel_distance(shuffled(real), shuffled(z), subsets=self.subsets)  # files may be sorted
        figures = [
            Figure(f"samples/fid{end}", fid, frechet_error(real, z), "", {**shared, "error": "bootstrap"}),
            Figure(f"samples/kid{end}", kid, error, "", {**shared, "subsets": self.subsets}),
        ]
        parts = manifold(real, z, k=self.k)
        for name in ("precision", "recall", "density", "coverage"):
            figures.append(mean_figure(f"samples/{name}{end}", getattr(parts, name), unit="", k=self.k, **protocol))
        return figures

    def _classes(
        self,
        scores: dict[str, Tensor],
        real: Tensor,
        labels: Tensor,
        network: FeatureNetwork,
        folder: Path,
        protocol: dict[str, Any],
    ) -> list[Figure]:
        """Returns how many samples are of each class, as the feature network sees it, and how diverse they are."""
        classes = network.logits.out_features
        if classes < 2:
            why = "the training images have fewer than two known classes, so that the features come from random weights"
            return [no_figure(f"samples/{name}", why) for name in ("accuracy", "entropy", "class_distance")]
        right = (real.argmax(1) == labels).double()
        note = "" if right.mean() > 0.9 else "the feature network is a poor classifier; raise samples.steps"
        figures = [mean_figure("samples/accuracy", right, unit="", note=note, what="feature network", **protocol)]
        reference = class_shares(real.argmax(1), classes)
        for end, logits in scores.items():
            value, error = entropy(logits)
            guesses = logits.argmax(1)

            def distance(index: Tensor, guesses: Tensor = guesses) -> float:
                return float((class_shares(guesses[index], classes) - reference).abs().sum() / 2)

            whole, spread = distance(torch.arange(len(guesses))), bootstrap_error(distance, len(guesses))
            shared = {"images": len(logits), "classes": classes, **protocol}
            figures += [
                Figure(f"samples/entropy{end}", value, error, "nats", shared),
                Figure(f"samples/class_distance{end}", whole, spread, "", shared),
            ]
        shares = {
            name: class_shares(logits.argmax(1), classes)
            for name, logits in (("samples", scores[""]), ("training images", scores["_floor"]), ("test images", real))
        }
        draw_shares(folder / "samples_classes.png", shares, "class, as the feature network sees it")
        guesses = scores[""].argmax(1)
        for label in range(classes):
            figures.append(
                mean_figure(f"samples/share/class_{label}", (guesses == label).double(), unit="", **protocol)
            )
        return figures

    def _neighbours(
        self, subject: Subject, samples: Tensor, test: Tensor, train: Images, protocol: dict[str, Any]
    ) -> list[Figure]:
        """Returns how far samples and test images are from the training images, in pixels, and draws the nearest."""
        samples, test = samples[: self.neighbours], shuffled(test)[: self.neighbours]
        (near, index), (floor, _) = self._nearest(subject, [samples, test], train)
        save_rows(
            subject.folder / "samples_nearest.png",
            in_pairs(samples[: 3 * COLUMNS], train.batch(index[: 3 * COLUMNS])[0]),
            value_range(subject),
        )
        shared = {**protocol, "among": f"{len(train)} training images", "distance": "Euclidean, in pixels"}
        copied, error = auroc(-floor, -near)
        return [
            mean_figure("samples/nearest", near, unit="", **shared),
            mean_figure("samples/nearest_floor", floor, unit="", **shared),
            Figure(
                "samples/nearer_than_test",
                copied,
                error,
                "",
                {"images": len(near), **shared},
                "the share of pairs in which a sample is nearer to the training images than a test image is: above 0.5 "
                "for copies, and for blur"
                if copied > 0.5
                else "",
            ),
        ]

    def _nearest(self, subject: Subject, sets: list[Tensor], train: Images) -> list[tuple[Tensor, Tensor]]:
        """Returns the distance of every image to the nearest training image, and its number, for each set of images."""
        best = [(torch.full((len(x),), torch.inf, dtype=torch.float64), torch.zeros(len(x)).long()) for x in sets]
        starts = range(0, len(train), ROWS)
        for start in subject.progress(starts, "nearest training images", len(starts)):
            some, _ = train.batch(slice(start, start + ROWS))
            for i, (x, (least, index)) in enumerate(zip(sets, best, strict=True)):
                distance, number = nearest(x, some)
                best[i] = torch.minimum(least, distance), torch.where(distance < least, number + start, index)
        return best


def shuffled(x: Tensor) -> Tensor:
    """Returns x (N, ...) in a fixed random order."""
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]


def in_pairs(samples: Tensor, neighbours: Tensor) -> Sequence[tuple[str, Tensor]]:
    """Returns rows of samples, each followed by the row of their nearest training images."""
    columns = min(COLUMNS, len(samples))
    whole = len(samples) // columns * columns
    pairs = zip(samples[:whole].split(columns), neighbours[:whole].split(columns), strict=True)
    return [row for above, below in pairs for row in (("samples", above), ("training", below))]
