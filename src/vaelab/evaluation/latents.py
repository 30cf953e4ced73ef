"""What the latents hold."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Independent

from vaelab.checks import at_least_zero, positive_int
from vaelab.data import Images
from vaelab.evaluation.base import Evaluation, Figure, Subject, bootstrap_error, mean_figure, no_figure
from vaelab.evaluation.drawings import draw_bars
from vaelab.metrics import probe_accuracy
from vaelab.metrics.latents import active_units, aggregate_parts, mean_covariance
from vaelab.models import M2, HierarchicalVAE, LadderVAE, Model
from vaelab.models.semi_supervised import Enumerated
from vaelab.models.terms import Latent
from vaelab.samplers.codes import Quantized

ROWS = 500  # images encoded at once
DRAWS = 2  # of z, so that the mean activity of lower groups can be told from their noise
COLLAPSED = 0.1  # a group with no larger share of active units has collapsed
REMEDY = (
    "free bits (objective=free_bits objective.free_nats=0.5), a slower warm-up (objective/schedule=linear "
    "objective.schedule.epochs=50) or a smaller decoder (model/decoder=mlp model.decoder.hidden=[100]) may keep more"
)
PARTS = ("mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl")


@dataclass(frozen=True)
class Group:
    """A latent group of N images.

    Attributes:
        name: `group_1/`, the top group, and so on; empty if there is only one.
        kl: its KL, (N,).
        kl_per_dim: that of its dimensions, or of the channels of a map, (N, D); None where there is no such.
        means: E_q[z|x] for two draws of the groups above, (2, N, D), of maps at all positions; None if there is none.
        may_collapse: whether q(z|x) has a density that the KL draws to the prior.
    """

    name: str
    kl: Tensor
    kl_per_dim: Tensor | None
    means: Tensor | None
    may_collapse: bool

    @cached_property
    def activity(self) -> Tensor | None:
        """Var_x(E_q[z_j|x]) of its units, (D,)."""
        return None if self.means is None else mean_covariance(*self.means)


class Latents(Evaluation):
    """KL by latent group and dimension, active units, mutual information, total correlation, kNN and a linear probe.

    The KL of every dimension goes to `latents.csv` and `latents_kl.png` in the run's folder. The classifiers are
    trained on labelled training images and tested on the split: on posterior means, on as many principal components of
    the pixels, and on the pixels. Their standard errors are binomial.

    Args:
        images: images of the split, at the most.
        mixture: how many of them make up the aggregate posterior q(z).
        threshold: of Var_x(E_q[z_j|x]), above which a unit is active.
        train_images: labelled training images for the classifiers, at the most.

    Raises:
        ValueError: for a number outside its range.
    """

    def __init__(
        self, *, images: int = 10000, mixture: int = 2000, threshold: float = 0.01, train_images: int = 5000
    ) -> None:
        self.images = positive_int("images", images)
        self.mixture = positive_int("mixture", mixture)
        self.threshold = at_least_zero("threshold", threshold)
        self.train_images = positive_int("train_images", train_images)
        if min(images, mixture) < 2:
            raise ValueError(f"images and mixture must be at least 2, but are {images} and {mixture}")

    @torch.no_grad()
    def __call__(self, subject: Subject) -> list[Figure]:
        """Returns `latents/kl`, `latents/active_units`, the parts of the KL and the classifiers' accuracies."""
        images = subject.chosen(self.images)
        parts = (self._information, self._parts, own_classifier, self._probes)
        return [figure for part in parts for figure in part(subject, images)]

    # ---- KL and active units

    def _information(self, subject: Subject, images: Images) -> list[Figure]:
        found, is_bound = groups(subject, images)
        figures = []
        if not is_bound:
            figures.append(no_figure("latents/kl", "a deterministic code has no density, and no KL"))
        else:
            total = sum((group.kl for group in found), torch.zeros(()))
            figures.append(mean_figure("latents/kl", total, draws=DRAWS))
            figures += [mean_figure(f"latents/kl/{g.name[:-1]}", g.kl, draws=DRAWS) for g in found if g.name]
            if per_dim := {g.name: mean_and_error(g.kl_per_dim) for g in found if g.kl_per_dim is not None}:
                protocol = {"images": len(images), **subject.protocol}
                write_table(subject.folder / "latents.csv", found, self.threshold, protocol)
                panels = {name.replace("_", " ").replace("/", ": "): bars for name, bars in per_dim.items()}
                draw_bars(subject.folder / "latents_kl.png", panels)
        for group in found:
            if group.activity is not None:
                figures.append(self._active(group, len(images)))
            elif not group.name:
                figures.append(no_figure("latents/active_units", "vectors of a codebook have no scale set by a prior"))
        return figures

    def _active(self, group: Group, number: int) -> Figure:
        assert group.means is not None
        means, units = group.means, group.means.shape[2]

        def count(index: Tensor) -> int:
            return active_units(mean_covariance(*means[:, index]), threshold=self.threshold)

        active = count(torch.arange(number))
        note = f"posterior collapse: {active} of {units} units are active; {REMEDY}"
        return Figure(
            f"latents/active_units{'/' if group.name else ''}{group.name[:-1]}",
            active,
            bootstrap_error(count, number),
            protocol={"images": number, "units": units, "threshold": self.threshold},
            note=note if group.may_collapse and active <= COLLAPSED * units else "",
        )

    # ---- the KL taken apart

    def _parts(self, subject: Subject, images: Images) -> list[Figure]:
        names = [f"latents/{part}" for part in PARTS]
        number = min(self.mixture, len(images))
        # `images` are in the order of the data, which may be by label.
        index = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:number].sort().values
        latents, posteriors, several = [], [], False
        for x, y in subject.read(images.subset(index), ROWS, "aggregate posterior"):
            terms = subject.model(x, y)
            latent, several = terms.latents[0], len(terms.latents) > 1
            if why := no_aggregate(subject.model, latent, x, y, is_bound=terms.is_bound):
                return [no_figure(name, why) for name in names]
            latents.append(latent)
            posteriors.append(subject.model.encode(x, y))
        try:
            parts = aggregate_parts(
                torch.cat([latent.z[0] for latent in latents]),
                torch.cat([latent.log_qz[0] for latent in latents]),
                torch.cat([latent.log_pz[0] for latent in latents]),
                posteriors,
            )
        except (NotImplementedError, ValueError) as error:
            why = (
                f"the posterior has no density of draws that are not its own ({type(posteriors[0]).__name__}: {error})"
            )
            return [no_figure(name, why) for name in names]
        group = {"group": "top"} if several else {}
        figures = []
        for name, part in zip(names, PARTS, strict=True):
            values = getattr(parts, part)
            if values is None:
                figures.append(no_figure(name, "the posterior does not factorise over dimensions"))
            elif part == "dimension_wise_kl" and not isinstance(latents[0].p, Independent):
                figures.append(no_figure(name, "the prior does not factorise over dimensions"))
            else:
                note = ""
                if part == "mutual_information" and values.mean() > 0.9 * math.log(number):
                    note = (
                        f"the estimate cannot exceed log {number} = {math.log(number):.2f} nats; marginal KL and total "
                        "correlation take what it lacks, and more images (latents.mixture) raise the limit"
                    )
                figures.append(mean_figure(name, values, note=note, mixture=number, draws=1, **group))
        return figures

    # ---- classifiers

    def _probes(self, subject: Subject, images: Images) -> list[Figure]:
        kinds = {"knn": "knn", "linear_probe": "logistic_regression"}
        sources = ("", "_pca", "_pixels")
        names = [f"latents/{kind}{source}" for kind in kinds for source in sources]
        try:
            train = labelled(subject.splits["train"], self.train_images, seed=subject.seed)
            why = no_probe(subject, train, images)
            if not why:
                vectors = {"": (codes(subject, train), codes(subject, images))}
        except ValueError as error:
            why = str(error)
        if why:
            return [no_figure(name, why) for name in names]
        pixels = (train.batch(slice(None))[0].flatten(1), images.batch(slice(None))[0].flatten(1))
        components = min(vectors[""][0].shape[1], *pixels[0].shape)
        vectors |= {"_pca": principal_components(*pixels, components, seed=subject.seed), "_pixels": pixels}
        figures = []
        pairs = [(kind, source) for kind in kinds for source in sources]
        for name, (kind, source) in zip(names, subject.progress(pairs, "probes", len(pairs)), strict=True):
            x_train, x_test = vectors[source]
            try:
                accuracy = probe_accuracy((x_train, train.y), (x_test, images.y), classifier=kinds[kind])
            except ValueError as error:
                figures.append(no_figure(name, str(error)))
                continue
            sizes = {"images": len(images), "train_images": len(train), "dimensions": x_train.shape[1]}
            top = not source and isinstance(subject.model, (LadderVAE, HierarchicalVAE))
            protocol = {**sizes, **({"group": "top"} if top else {})}
            figures.append(Figure(name, accuracy, binomial_error(accuracy, len(images)), protocol=protocol))
        return figures


def groups(subject: Subject, images: Images) -> tuple[list[Group], bool]:
    """Returns the latent groups, the top one first, and whether the KL is one."""
    model = subject.model
    kl: list[list[Tensor]] = []
    per_dim: list[list[Tensor | None]] = []
    means: list[list[Tensor | None]] = []
    is_bound, quantized = True, False
    for x, y in subject.read(images, ROWS, "latents"):
        terms = model(x, y, num_samples=DRAWS)
        is_bound = terms.is_bound
        quantized = isinstance(terms.latents[0].q, Quantized)
        kl.append([latent.kl.mean(0).cpu() for latent in terms.latents])
        per_dim.append([by_channel(latent.kl_per_dim) for latent in terms.latents])
        means.append([posterior_means(model, latent, x) for latent in terms.latents])
    found = []
    for i in range(len(kl[0])):
        columns = [rows[i] for rows in per_dim]
        pairs = [rows[i] for rows in means]
        found.append(
            Group(
                name=f"group_{i + 1}/" if len(kl[0]) > 1 else "",
                kl=torch.cat([rows[i] for rows in kl]),
                kl_per_dim=None if columns[0] is None else torch.cat(cast("list[Tensor]", columns)),
                means=None if pairs[0] is None else torch.cat(cast("list[Tensor]", pairs), 1),
                may_collapse=is_bound and not quantized,
            )
        )
    return found, is_bound


def by_channel(kl: Tensor | None) -> Tensor | None:
    """Sums a KL by dimension (B, D) or (B, D, h, w) over positions, (B, D)."""
    return None if kl is None else kl.flatten(2).sum(2).cpu() if kl.ndim > 2 else kl.cpu()


def posterior_means(model: Model, latent: Latent, x: Tensor) -> Tensor | None:
    """Returns E_q[z|x] for two draws of the groups above, (2, B, D), or None for labels and for codebooks."""
    if isinstance(latent.q, Quantized):
        return None
    if isinstance(latent, Enumerated):
        if latent.kl_per_dim is None:
            return None
        mean = model.encode(x).mean  # of the most probable class
    else:
        mean = latent.q.mean
    if mean.shape[: -len(model.latent_shape)] == (len(x),):
        mean = mean.expand(2, *mean.shape)
    return mean.flatten(2).cpu()


def no_aggregate(model: Model, latent: Latent, x: Tensor, y: Tensor, *, is_bound: bool) -> str:
    """Says why there is no aggregate posterior of the first latent group; empty if there is one."""
    if not is_bound:
        return "a deterministic code has no density"
    if isinstance(latent, Enumerated):
        return "the posterior of z is a mixture over the classes, of which no draw stands alone"
    mean = latent.q.mean
    if not torch.allclose(mean.view(-1, *mean.shape[-len(model.latent_shape) :]), model.encode(x, y).mean, atol=1e-4):
        return "the top group's posterior is given draws of the groups below"
    return ""


def own_classifier(subject: Subject, images: Images) -> list[Figure]:
    """Returns how often the classifier of a model that has one is right; nothing for all other models."""
    model = subject.model
    if not isinstance(model, M2):
        return []
    known = images.subset((images.y >= 0).nonzero().squeeze(1))
    guesses = [model.classify(x).argmax(1).cpu() for x, _ in subject.read(known, ROWS, "classifier")]
    right = (torch.cat(guesses) == known.y.cpu()).double()
    return [mean_figure("latents/classifier", right, unit="", what="q(y|x) of the model itself")]


def codes(subject: Subject, images: Images) -> Tensor:
    """Returns the posterior means E_q[z|x] of what the model calls z, (N, D), from the images alone.

    Raises:
        ValueError: for a model whose encoder is given more than the image.
    """
    try:
        means = [
            subject.model.encode(x).mean.flatten(1).cpu() for x, _ in subject.read(images, ROWS, "posterior means")
        ]
    except ValueError as error:
        raise ValueError(f"the encoder is given more than the image, which z then need not hold ({error})") from error
    return torch.cat(means)


def labelled(images: Images, number: int, *, seed: int) -> Images:
    """Returns at most `number` of the images that have a label, chosen by `seed`; all of attributes."""
    (index,) = (images.y >= 0).nonzero(as_tuple=True) if images.y.ndim == 1 else (torch.arange(len(images)),)
    chosen = torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))[:number]
    return images.subset(index[chosen.sort().values])


def no_probe(subject: Subject, train: Images, test: Images) -> str:
    """Says why no classifier can be trained and tested; empty if one can."""
    if train.num_attributes:
        return "the images have attributes instead of class labels"
    if subject.split == "train":
        return "classifiers are trained on training images; choose split=val or split=test"
    classes = train.y.unique()
    if len(classes) < 2 or len(test.y.unique()) < 2:
        return "all images are of one class"
    if len(train) < 5 * len(classes):
        return f"{len(train)} labelled training images are too few for {len(classes)} classes"
    return ""


def principal_components(train: Tensor, test: Tensor, number: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Returns so many principal components of the training vectors (N, P), and those of others by the same axes."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components=number, random_state=seed).fit(train.numpy())
    return torch.from_numpy(pca.transform(train.numpy())), torch.from_numpy(pca.transform(test.numpy()))


def binomial_error(share: float, number: int) -> float:
    """Returns sqrt(p (1 - p) / n), the standard error of a share p of n."""
    return math.sqrt(share * (1 - share) / number)


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean over images of values (N, D), and its standard error, (D,) each."""
    values = values.double()
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def write_table(path: Path, found: Sequence[Group], threshold: float, protocol: Mapping[str, object]) -> None:
    """Writes the KL of every dimension with its standard error, of latent vectors the unit's activity, and what of."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("group", "dimension", "kl", "kl_standard_error", "activity", "active", *protocol))
        for i, group in enumerate(found, 1):
            if group.kl_per_dim is None:
                continue
            kl, error = mean_and_error(group.kl_per_dim)
            units = group.activity if group.activity is not None and len(group.activity) == len(kl) else None
            for j, (mean, deviation) in enumerate(zip(kl.tolist(), error.tolist(), strict=True)):
                activity = "" if units is None else units[j].item()
                active = "" if units is None else int(units[j] > threshold)
                table.writerow((i, j, mean, deviation, activity, active, *protocol.values()))
