"""Which training images there are by class, which keep their label, and in which order the labelled come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vaelab.data.images import Images

UNLABELLED = -1  # the label of an image whose class is not told


def keep_labels(images: Images, number: int, *, seed: int) -> Images:
    """Returns the images with `number` of their labels, as many of every class, chosen by `seed`; all others are -1.

    Where the classes do not divide `number`, or one of them has too few images, the counts are as equal as can be.

    Args:
        images: the training set.
        number: how many labels are kept.
        seed: of the choice.

    Raises:
        ValueError: if there are attributes in the place of labels, fewer labels are asked for than there are classes,
            or more than there are images.
    """
    if images.num_attributes:
        raise ValueError(
            "data.labels chooses among class labels, but these images have attributes instead; leave it null"
        )
    classes = images.y.unique()
    if isinstance(number, bool) or not len(classes) <= number <= len(images):
        raise ValueError(
            f"data.labels must lie between {len(classes)} (the classes) and {len(images):,} (the training images), but "
            f"is {number}; null keeps all labels"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    y = images.y[order]
    rank = torch.empty_like(y)  # how many of its class come before an image
    for label in classes:
        rank[y == label] = torch.arange(int((y == label).sum()))
    kept = order[rank.argsort(stable=True)[:number]]
    labels = torch.full_like(images.y, UNLABELLED)
    labels[kept] = images.y[kept]
    return replace(images, y=labels)


def chosen_classes(images: Images, only: Sequence[int] | None, without: Sequence[int] | None) -> list[int] | None:
    """Returns the classes of `images` that are in `only`, or are not in `without`; None if both are None.

    Raises:
        ValueError: if both are given, there are attributes in the place of labels, for a class that does not exist, or
            if no class is left.
    """
    if only is None and without is None:
        return None
    if only is not None and without is not None:
        raise ValueError("data.only_classes and data.without_classes exclude each other; leave one of them null")
    name, listed = ("only_classes", list(only)) if only is not None else ("without_classes", list(without or ()))
    if images.num_attributes:
        raise ValueError(f"data.{name} chooses among class labels, but these images have attributes; leave it null")
    classes = images.y.unique().tolist()
    if not listed or any(label not in classes for label in listed):
        raise ValueError(f"data.{name} must list some of the classes {classes}, but is {listed}")
    kept = [label for label in classes if (label in listed) == (only is not None)]
    if not kept:
        raise ValueError(f"data.{name} leaves out all of the classes {classes}; keep one of them")
    return kept


def keep_classes(images: Images, classes: Sequence[int]) -> Images:
    """Returns the images whose label is one of `classes`.

    Raises:
        ValueError: if there is none.
    """
    kept = torch.isin(images.y, torch.tensor(list(classes)))
    if not kept.any():
        raise ValueError(f"a split holds no image of the classes {list(classes)}; raise data.val_size")
    return images.subset(kept.nonzero().squeeze(1))


def recurring(index: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Returns `length` entries of `index`: all of them in a random order, then all in another one, and so on."""
    passes = -(-length // len(index))
    order = torch.cat([torch.randperm(len(index), generator=generator) for _ in range(passes)])
    return index[order[:length].to(index.device)]
