"""Batches: shards, orders, draws, and going on in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import pytest
import torch

from vaelab.data import Images
from vaelab.data.batches import Batches

Numbered = Callable[..., Images]


def ranks(images: Images, world_size: int, **options) -> list[Batches]:
    return [Batches(images, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def labels(batches: Batches) -> list[list[int]]:
    return [y.tolist() for _, y in batches]


def together(steps: list[list[list[int]]]) -> list[list[int]]:
    """Joins what the ranks see, step by step: [rank][step][image] -> [step][image]."""
    return [flat(parts) for parts in zip(*steps, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 24, 25, 29, 60, 61])
def test_evaluation_reads_every_image_exactly_once_in_order(numbered: Numbered, size: int, world_size: int) -> None:
    shards = ranks(numbered(size), world_size, batch_size=4, training=False)
    steps = [labels(shard) for shard in shards]
    assert flat(together(steps)) == list(range(size))
    assert {len(shard) for shard in shards} == {len(shard) for shard in steps} == {-(-size // (4 * world_size))}


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [5, 6, 24, 25, 29, 60, 61, 63])
def test_training_doubles_nothing_and_leaves_out_fewer_than_two_images_for_every_rank(
    numbered: Numbered, size: int, world_size: int
) -> None:
    shards = ranks(numbered(size), world_size, batch_size=4, training=True, seed=1)
    steps = [labels(shard) for shard in shards]
    seen = flat(together(steps))
    assert len(seen) == len(set(seen)) > size - 2 * world_size
    assert all(1 <= len(batch) <= 4 for shard in steps for batch in shard)
    assert {len(shard) for shard in shards} == {len(shard) for shard in steps} == {len(steps[0])}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_training_batch_is_a_single_image_unless_there_are_no_more(numbered: Numbered, world_size: int) -> None:
    for left in range(1, 4 * world_size):
        for shard in ranks(numbered(8 * world_size + left), world_size, batch_size=4, training=True):
            assert min(len(batch) for batch in labels(shard)) > 1
            assert len(list(shard)) == len(shard) == (3 if left >= 2 * world_size else 2)
    alone = [labels(shard) for shard in ranks(numbered(world_size), world_size, batch_size=4, training=True)]
    assert [[len(batch) for batch in steps] for steps in alone] == [[1]] * world_size


def test_over_the_epochs_no_image_is_always_left_out(numbered: Numbered) -> None:
    shards = ranks(numbered(9), 2, batch_size=4, training=True)
    seen = [flat(together([labels(shard) for shard in shards])) for _ in range(30)]
    assert all(len(epoch) == 8 for epoch in seen)
    assert set(flat(seen)) == set(range(9))


@pytest.mark.parametrize("training", [True, False])
def test_ranks_see_together_what_one_process_with_larger_batches_sees(numbered: Numbered, training: bool) -> None:
    images = numbered(62)
    one = labels(Batches(images, batch_size=12, training=training, seed=7))
    three = together([labels(s) for s in ranks(images, 3, batch_size=4, training=training, seed=7)])
    # The last step holds two images: too few for three ranks to train on.
    assert three == (one[:-1] if training else one)
    assert len(one) == 6


def test_the_order_depends_on_seed_and_epoch_alone(numbered: Numbered) -> None:
    def order(seed: int, epoch: int, batch_size: int = 8) -> list[int]:
        batches = Batches(numbered(64), batch_size=batch_size, training=True, seed=seed)
        batches.set_epoch(epoch)
        return flat(labels(batches))

    torch.manual_seed(1)
    first = order(0, 0)
    torch.manual_seed(2)  # no other randomness moves it
    assert order(0, 0) == first
    assert order(0, 0, batch_size=5) == first
    assert order(0, 3) == order(0, 3)
    orders = [tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_every_pass_is_another_epoch_and_epochs_can_be_chosen(numbered: Numbered) -> None:
    batches = Batches(numbered(64), batch_size=8, training=True)
    passes = [labels(batches) for _ in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    batches.set_epoch(1)
    assert labels(batches) == passes[1]


def test_without_reshuffling_the_same_order_comes_back(numbered: Numbered) -> None:
    batches = Batches(numbered(64), batch_size=8, training=True, reshuffle=False)
    first = labels(batches)
    assert labels(batches) == first
    assert flat(first) != list(range(64))


def test_an_abandoned_pass_starts_again_from_its_first_batch(numbered: Numbered) -> None:
    batches = Batches(numbered(20), batch_size=4, training=False)
    iterator = iter(batches)
    next(iterator)
    next(iterator)
    assert flat(labels(batches)) == list(range(20))


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_a_stopped_epoch_goes_on_with_exactly_the_remaining_batches(
    numbered: Numbered, done: int, world_size: int
) -> None:
    images = numbered(70 * world_size)
    for rank in range(world_size):
        options = {"batch_size": 8, "training": True, "resample": True, "rank": rank, "world_size": world_size}
        whole = Batches(images, **options)
        whole.set_epoch(2)
        everything = list(whole)
        next_epoch = labels(whole)

        stopped = Batches(images, **options)
        stopped.set_epoch(2)
        iterator = iter(stopped)
        for _ in range(done):
            next(iterator)
        state = stopped.state_dict()

        resumed = Batches(images, **options)
        resumed.load_state_dict(state)
        iter(resumed)  # Lightning makes an iterator before it sets the epoch
        resumed.set_epoch(2)
        assert resumed.state_dict() == state
        remaining = list(resumed)
        assert [y.tolist() for _, y in remaining] == [y.tolist() for _, y in everything[done:]]
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(remaining, everything[done:], strict=True))
        assert labels(resumed) == next_epoch


def test_behind_the_last_batch_of_an_epoch_the_next_one_starts_from_its_first(numbered: Numbered) -> None:
    images = numbered(40)
    whole = Batches(images, batch_size=8, training=True)
    labels(whole)
    second = labels(whole)

    stopped = Batches(images, batch_size=8, training=True)
    iterator = iter(stopped)
    for _ in range(5):
        next(iterator)  # the last batch is out, but nobody has asked for another
    for state in (stopped.state_dict(), {"epoch": 1, "seen": 0}):
        resumed = Batches(images, batch_size=8, training=True)
        resumed.load_state_dict(state)
        resumed.set_epoch(1)
        assert labels(resumed) == second
        resumed = Batches(images, batch_size=8, training=True)
        resumed.load_state_dict(state)
        assert labels(resumed) == second


def test_an_epoch_cut_short_is_not_resumed_in_the_next_one(numbered: Numbered) -> None:
    batches = Batches(numbered(40), batch_size=8, training=True)
    iterator = iter(batches)
    next(iterator)
    next(iterator)
    batches.set_epoch(1)
    state = batches.state_dict()
    whole = labels(batches)
    resumed = Batches(numbered(40), batch_size=8, training=True)
    resumed.load_state_dict(state)
    resumed.set_epoch(1)
    assert labels(resumed) == whole
    assert len(whole) == 5


def dynamic(images: Images, *, epoch: int = 0, **options: int) -> dict[int, torch.Tensor]:
    """The draws of an epoch by label."""
    batches = Batches(images, batch_size=8, training=True, resample=True, **options)
    batches.set_epoch(epoch)
    return {int(label): image for x, y in batches for image, label in zip(x, y, strict=True)}


def test_dynamic_draws_are_new_at_every_epoch_and_reproducible_by_seed(numbered: Numbered) -> None:
    images = numbered(64)
    torch.manual_seed(1)
    first = dynamic(images)
    torch.manual_seed(2)
    again = dynamic(images)
    other = [dynamic(images, epoch=1), dynamic(images, seed=1)]
    assert all(torch.equal(first[i], again[i]) for i in range(64))
    for draws in other:
        assert sum(not torch.equal(first[i], draws[i]) for i in range(64)) > 32


def test_dynamic_draws_are_binary_and_their_mean_is_the_grey_value() -> None:
    grey = torch.tensor([0, 51, 102, 204, 255], dtype=torch.uint8).view(1, 1, 1, 5).repeat(100, 1, 1, 1)
    batches = Batches(Images(x=grey, y=torch.zeros(100).long()), batch_size=32, training=True, resample=True)
    draws = torch.cat([x for _ in range(100) for x, _ in batches])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(draws.mean((0, 1, 2)), torch.tensor([0, 0.2, 0.4, 0.8, 1]), rtol=0, atol=4.5 * 0.5 / 100)


def test_ranks_and_steps_draw_different_noise() -> None:
    images = Images(x=torch.full((64, 1, 8, 8), 128, dtype=torch.uint8), y=torch.arange(64))
    draws = torch.stack(
        [
            x
            for rank in range(2)
            for x, _ in Batches(images, batch_size=8, training=True, resample=True, rank=rank, world_size=2)
        ]
    ).flatten(1)  # 2 ranks of 4 steps, every one with the same probabilities
    agreement = (draws.unsqueeze(0) == draws.unsqueeze(1)).float().mean(-1)
    others = agreement[~torch.eye(8, dtype=torch.bool)]
    torch.testing.assert_close(others, torch.full_like(others, 0.5), rtol=0, atol=4.5 * 0.5 / 512**0.5)
