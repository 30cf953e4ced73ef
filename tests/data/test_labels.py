"""Few labels: which images keep theirs, and how they come back in every batch."""

from __future__ import annotations

import pytest
import torch

from vaelab.data import Images
from vaelab.data.batches import Batches
from vaelab.data.labels import keep_labels


def classes(*counts: int) -> Images:
    """Images of classes 0, 1, ... in shuffled order; an image's pixel is its number."""
    y = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(1))]
    return Images(x=torch.arange(len(y)).float().view(-1, 1, 1, 1), y=y, scale=1)


def counts(images: Images) -> list[int]:
    return images.y[images.y >= 0].bincount().tolist()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(3, [1, 1, 1]), (30, [10, 10, 10]), (60, [20, 20, 20]), (90, [35, 20, 35]), (120, [50, 20, 50])],
)
def test_labels_are_kept_evenly_as_far_as_a_class_has_images(number: int, expected: list[int]) -> None:
    assert counts(keep_labels(classes(50, 20, 50), number, seed=0)) == expected


def test_a_remainder_goes_to_some_classes_by_one() -> None:
    found = [counts(keep_labels(classes(50, 50, 50), 32, seed=seed)) for seed in range(10)]
    assert all(sorted(count) == [10, 11, 11] for count in found)
    assert len({tuple(count) for count in found}) > 1


def test_kept_labels_are_the_true_ones_and_all_others_are_hidden() -> None:
    images = classes(50, 20, 50)
    kept = keep_labels(images, 12, seed=3)
    known = kept.y >= 0
    assert known.sum() == 12
    assert torch.equal(kept.y[known], images.y[known])
    assert (kept.y[~known] == -1).all()
    assert torch.equal(kept.x, images.x)


def test_the_choice_depends_on_the_seed_alone() -> None:
    images = classes(50, 20, 50)
    first = keep_labels(images, 12, seed=3).y
    torch.manual_seed(9)
    assert torch.equal(keep_labels(images, 12, seed=3).y, first)
    assert not torch.equal(keep_labels(images, 12, seed=4).y, first)


@pytest.mark.parametrize("number", [2, 0, -1, 121])
def test_impossible_numbers_of_labels_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=rf"data\.labels must lie between 3 .* and 120 .*, but is {number}"):
        keep_labels(classes(50, 20, 50), number, seed=0)


def test_a_run_hides_training_labels_only_and_counts_all_classes(module) -> None:
    data = module(classes(60, 60, 60), classes(5, 5, 5), labels=6, val_size=30)
    assert counts(data.splits["train"]) == [2, 2, 2]
    assert all((data.splits[name].y >= 0).all() for name in ("val", "test"))
    assert data.num_classes == 3
    other = module(classes(60, 60, 60), classes(5, 5, 5), labels=6, val_size=30, seed=5)
    assert torch.equal(other.splits["train"].y, data.splits["train"].y)


def attributed() -> Images:
    return Images(x=torch.rand(20, 1, 1, 1), y=torch.rand(20, 2), scale=1)


@pytest.mark.parametrize("option", ["labels", "labelled_per_batch"])
def test_attributes_are_no_labels(module, option: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.{option} .* attributes"):
        module(attributed(), attributed(), **{option: 4})


def test_a_number_of_labelled_images_below_one_is_refused(module) -> None:
    with pytest.raises(ValueError, match=r"data\.labelled_per_batch must be a whole number of at least 1, but is 0"):
        module(classes(60, 60), labelled_per_batch=0)


# ---- labelled images in every batch


def few() -> Images:
    return keep_labels(classes(50, 20, 50), 9, seed=0)


def seen(batches: Batches) -> list[tuple[list[int], list[int]]]:
    return [(x.flatten().long().tolist(), y.tolist()) for x, y in batches]


def test_every_batch_gets_labelled_images_besides_its_own() -> None:
    images = few()
    plain = seen(Batches(images, batch_size=16, training=True))
    mixed = seen(Batches(images, batch_size=16, training=True, labelled_per_batch=6))
    assert len(mixed) == len(plain)
    for (x, _), (own, _) in zip(mixed, plain, strict=True):
        assert x[:-6] == own
        assert all(images.y[i] >= 0 for i in x[-6:])
        assert len(set(x[-6:])) > 1
    assert all(y == images.y[x].tolist() for x, y in mixed)


def test_all_labelled_images_come_back_equally_often() -> None:
    batches = Batches(few(), batch_size=16, training=True, labelled_per_batch=9)  # all of them, in every step
    for x, _ in seen(batches):
        assert len(set(x[-9:])) == 9


def test_evaluation_adds_nothing() -> None:
    batches = Batches(few(), batch_size=16, training=False, labelled_per_batch=6)
    assert [i for x, _ in seen(batches) for i in x] == list(range(120))


def test_ranks_see_together_what_one_process_sees() -> None:
    one = seen(Batches(few(), batch_size=12, training=True, labelled_per_batch=6, seed=2))
    ranks = [
        seen(Batches(few(), batch_size=4, training=True, labelled_per_batch=2, seed=2, rank=r, world_size=3))
        for r in range(3)
    ]
    for (x, _), *parts in zip(one, *ranks, strict=True):
        assert sorted(x) == sorted(i for part, _ in parts for i in part)
        assert x[-6:] == [i for part, _ in parts for i in part[-2:]]


def test_labelled_images_depend_on_seed_and_epoch_alone() -> None:
    def labelled(seed: int, epoch: int) -> list[int]:
        batches = Batches(few(), batch_size=16, training=True, labelled_per_batch=4, seed=seed)
        batches.set_epoch(epoch)
        return [i for x, _ in seen(batches) for i in x[-4:]]

    assert labelled(0, 1) == labelled(0, 1)
    assert len({tuple(labelled(seed, epoch)) for seed in range(2) for epoch in range(3)}) == 6


def test_a_stopped_epoch_goes_on_with_the_same_labelled_images() -> None:
    options = {"batch_size": 16, "training": True, "labelled_per_batch": 4}
    whole = seen(Batches(few(), **options))
    stopped = Batches(few(), **options)
    iterator = iter(stopped)
    next(iterator), next(iterator)
    resumed = Batches(few(), **options)
    resumed.load_state_dict(stopped.state_dict())
    assert seen(resumed) == whole[2:]
