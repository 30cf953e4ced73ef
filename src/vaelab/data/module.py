"""The LightningDataModule for images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import lightning as L
import torch

from vaelab.checks import one_of, positive_int
from vaelab.data.batches import Batches
from vaelab.data.images import BINARIZATIONS, SUPPORTS, Images, split
from vaelab.data.labels import chosen_classes, keep_classes, keep_labels
from vaelab.data.sources import Source


class ImageDataModule(L.LightningDataModule):
    """Images in memory, split into `train`, `val` and `test`, in batches (x, y) on the device of the model.

    The validation set is cut from the official training set by `split_seed`. A set without an official test set has one
    cut off by a fixed seed, so that no run ever trains on another run's test images.

    Args:
        source: where the images come from.
        batch_size: images per device and step.
        eval_batch_size: images per device and step of validation and test; it changes no figure.
        val_size: size of the validation set, a number of images or a fraction of the training set.
        test_size: the same for a test set that has to be cut off.
        binarize: none, dynamic (training images are drawn anew whenever they are read, the others once by
            `split_seed`), static (all are drawn once by `split_seed`) or threshold (x >= 0.5).
        normalize: none or standard: what the *encoder* sees (the likelihood always scores the data in its own range).
        mean: the mean for `standard`, one number per channel; None measures it on the training split.
        std: the standard deviation for `standard`, likewise.
        labels: how many training images keep their label, as many of every class, chosen by `split_seed`; the label of
            all others is -1. None keeps all labels; validation and test always do.
        labelled_per_batch: labelled images per device that are added to every training batch; None adds none.
        only_classes: the classes of the training and validation images; None for all. The test set keeps all classes.
        without_classes: classes that are left out of the training and validation images; None for none.
        split_seed: of the validation split, of static binarisation and of the labels that are kept.
        seed: of the order of the training batches.
        device: where the whole set is kept: auto (with the model) or cpu (for sets larger than an accelerator's memory;
            a batch is still converted on the accelerator).

    Raises:
        ValueError: for impossible sizes, unknown names or unreadable files.
    """

    TEST_SEED = 0

    def __init__(
        self,
        *,
        source: Source,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int | float = 5000,
        test_size: int | float = 0.2,
        binarize: str = "none",
        normalize: str = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        labels: int | None = None,
        labelled_per_batch: int | None = None,
        only_classes: Sequence[int] | None = None,
        without_classes: Sequence[int] | None = None,
        split_seed: int = 0,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = positive_int("data.batch_size", batch_size)
        self.eval_batch_size = positive_int("data.eval_batch_size", eval_batch_size)
        self.val_size, self.test_size = val_size, test_size
        self.binarize = one_of("data.binarize", binarize, BINARIZATIONS)
        self.normalize = one_of("data.normalize", normalize, ("none", "standard"))
        self.given_mean, self.given_std = mean, std
        self.labels = labels
        self.labelled_per_batch = 0
        if labelled_per_batch is not None:
            self.labelled_per_batch = positive_int("data.labelled_per_batch", labelled_per_batch)
        self.only_classes, self.without_classes = only_classes, without_classes
        self.split_seed, self.seed = seed_number("data.split_seed", split_seed), seed_number("data.seed", seed)
        self.keep_on = one_of("data.device", device, ("auto", "cpu"))
        self.splits: dict[str, Images] = {}
        self._placed: dict[tuple[str, torch.device], Images] = {}  # splits on their devices, copied once

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits the data, once, and hides the labels that are not to be kept."""
        if self.splits:
            return
        splits = self._read()
        if self.labels is not None:
            splits["train"] = keep_labels(splits["train"], self.labels, seed=self.split_seed)
        if self.labelled_per_batch and splits["train"].num_attributes:
            raise ValueError(
                "data.labelled_per_batch adds images with class labels, but these have attributes; leave it null"
            )
        self.splits = splits

    def _read(self) -> dict[str, Images]:
        """Returns the splits with all labels."""
        train, test = self.source.load()
        if test is None:
            size = split_size("data.test_size", self.test_size, train, self.source.origin)
            train, test = split(train, size, seed=self.TEST_SEED)
        if (train.shape, train.levels) != (test.shape, test.levels):
            raise ValueError(
                f"{self.source.origin}: training images are {describe(train)}, but test images {describe(test)}; "
                "make them alike"
            )
        classes = chosen_classes(train, self.only_classes, self.without_classes)
        train, val = split(
            train, split_size("data.val_size", self.val_size, train, self.source.origin), seed=self.split_seed
        )
        splits = {"train": train, "val": val, "test": test}
        if classes is not None:
            splits |= {name: keep_classes(splits[name], classes) for name in ("train", "val")}
        for i, (name, images) in enumerate(splits.items()):
            if self.binarize == "dynamic" and name == "train":
                images.check_binarizable(self.binarize)  # the batches draw them
            elif self.binarize != "none":
                how = "static" if self.binarize == "dynamic" else self.binarize
                splits[name] = images.binarized(how, seed=self.split_seed + i)
        return splits

    @property
    def x_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        return self.splits["train"].shape

    @property
    def support(self) -> str:
        """What values the model is asked about: `binary`, `levels`, `unit` or `real`."""
        if self.binarize != "none":
            return "binary"
        supports = [images.support for images in self.splits.values()]
        return max(supports, key=SUPPORTS.index)

    @property
    def levels(self) -> int | None:
        """How many grey levels the model is asked about, or None if the values are floating point."""
        return 2 if self.binarize != "none" else self.splits["train"].levels

    @property
    def num_classes(self) -> int:
        """The number of classes in all splits, counting from label 0."""
        return max(images.num_classes for images in self.splits.values())

    @property
    def num_attributes(self) -> int:
        """The number of real attributes of every image; 0 if there are labels instead."""
        return self.splits["train"].num_attributes

    @property
    def moments(self) -> tuple[list[float], list[float]]:
        """What the encoder's view is shifted and divided by: mean and standard deviation of every channel.

        Raises:
            ValueError: if a given mean or std does not fit the data, or the measured deviation is zero.
        """
        channels = self.x_shape[0]
        if self.normalize == "none":
            return [0.0] * channels, [1.0] * channels
        mean, std = self.given_mean, self.given_std
        if mean is None or std is None:
            measured_mean, measured_std = self.splits["train"].moments()
            if self.binarize == "dynamic":  # the encoder sees draws of Bernoulli(x), whose variance is m (1 - m)
                measured_std = [math.sqrt(m * (1 - m)) for m in measured_mean]
            mean = measured_mean if mean is None else mean
            std = measured_std if std is None else std
        for name, values in (("data.mean", mean), ("data.std", std)):
            if len(values) != channels or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} needs one number for each of {channels} channels, but is {list(values)}")
        if min(std) <= 0:
            raise ValueError(
                f"data.std must be above 0, but is {list(std)}; use data.normalize=none for constant channels"
            )
        return list(mean), list(std)

    def steps_per_epoch(self, world_size: int) -> int:
        """Returns the number of training batches of an epoch for so many devices."""
        return len(self._batches("train", torch.device("cpu"), rank=0, world_size=world_size))

    def train_dataloader(self) -> Batches:
        """Returns shuffled training batches on the trainer's device."""
        return self._attached("train")

    def val_dataloader(self) -> Batches:
        """Returns validation batches in a fixed order."""
        return self._attached("val")

    def test_dataloader(self) -> Batches:
        """Returns test batches in a fixed order."""
        return self._attached("test")

    def _attached(self, name: str) -> Batches:
        trainer = self.trainer
        if trainer is None:
            return self._batches(name, torch.device("cpu"), rank=0, world_size=1)
        return self._batches(
            name,
            trainer.strategy.root_device,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            reshuffle=not trainer.overfit_batches,  # type: ignore[attr-defined]  # wants the same batches again
        )

    def _on(self, name: str, device: torch.device) -> Images:
        if (name, device) not in self._placed:
            self._placed[name, device] = self.splits[name].to(device)
        return self._placed[name, device]

    def _batches(
        self, name: str, device: torch.device, *, rank: int, world_size: int, reshuffle: bool = True
    ) -> Batches:
        training = name == "train"
        images = self.splits[name]
        if training and len(images) < world_size:
            raise ValueError(
                f"{len(images)} training images cannot be shared by {world_size} devices; use fewer (trainer.devices)"
            )
        return Batches(
            self._on(name, device) if self.keep_on == "auto" else images,
            batch_size=self.batch_size if training else self.eval_batch_size,
            training=training,
            reshuffle=reshuffle,
            resample=training and self.binarize == "dynamic",
            labelled_per_batch=self.labelled_per_batch,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            device=device,
        )


def seed_number(name: str, seed: int) -> int:
    """Returns `seed` if it is a whole number of at least 0, else raises a ValueError that names it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, but is {seed!r}")
    return seed


def describe(images: Images) -> str:
    """Says of what kind images are."""
    height, width = images.shape[1:]
    return f"{height}x{width}x{images.shape[0]} with {images.levels or 'floating-point'} values"


def split_size(name: str, size: int | float, images: Images, origin: str) -> int:
    """Turns a number or a fraction of images into a number, leaving at least one image on both sides.

    Raises:
        ValueError: if `size` is neither, or a side would be empty.
    """
    total = len(images)
    if isinstance(size, bool) or (isinstance(size, float) and not 0 < size < 1):
        raise ValueError(f"{name} must be a whole number or a fraction between 0 and 1, but is {size}")
    number = math.floor(size * total) if isinstance(size, float) else size
    if not 1 <= number < total:
        raise ValueError(
            f"{name}={size} of {total:,} images leaves a split empty ({origin}); "
            + (f"choose 1 to {total - 1:,} of them" if total > 1 else "use more images, or data=digits")
        )
    return number
