"""Few labels: which training images keep theirs, and in which order they come back."""

from __future__ import annotations

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


def recurring(index: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Returns `length` entries of `index`: all of them in a random order, then all in another one, and so on."""
    passes = -(-length // len(index))
    order = torch.cat([torch.randperm(len(index), generator=generator) for _ in range(passes)])
    return index[order[:length].to(index.device)]
