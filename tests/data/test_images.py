"""The set of images as one tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vaelab.data import Images
from vaelab.data.batches import Batches
from vaelab.data.images import bernoulli, split


def images(x: Tensor, scale: int = 255) -> Images:
    return Images(x=x, y=torch.zeros(len(x), dtype=torch.int64), scale=scale)


class Recorder(TorchDispatchMode):
    """Counts tensor operations, and notes the largest floating-point tensor that one of them makes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.largest = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        if isinstance(result, Tensor) and result.is_floating_point():
            self.largest = max(self.largest, result.numel())
        return result


@pytest.mark.parametrize(
    ("x", "scale", "support", "levels"),
    [
        (torch.tensor([0, 3, 255], dtype=torch.uint8), 255, "levels", 256),
        (torch.tensor([0, 1, 0], dtype=torch.uint8), 255, "levels", 256),
        (torch.tensor([0, 3, 16], dtype=torch.uint8), 16, "levels", 17),
        (torch.tensor([0, 1, 1], dtype=torch.uint8), 1, "binary", 2),
        (torch.tensor([0.0, 1.0, 1.0]), 1, "binary", None),
        (torch.tensor([0.0, 0.5, 1.0]), 1, "unit", None),
        (torch.tensor([0.0, 0.5, 1.001]), 1, "real", None),
        (torch.tensor([-0.001, 0.0, 1.0]), 1, "real", None),
    ],
)
def test_support_and_levels_say_what_values_there_are(x: Tensor, scale: int, support: str, levels: int | None) -> None:
    found = images(x.view(1, 1, 1, 3), scale)
    assert (found.support, found.levels) == (support, levels)


@pytest.mark.parametrize("scale", [1, 16, 255])
def test_a_batch_holds_the_stored_values_over_the_scale(scale: int) -> None:
    x = torch.randint(0, scale + 1, (7, 3, 4, 5), dtype=torch.uint8)
    stored = Images(x=x.clone(), y=torch.arange(7), scale=scale)
    index = torch.tensor([5, 0, 5])
    batch, labels = stored.batch(index)
    np.testing.assert_array_equal(batch.numpy(), x.numpy()[[5, 0, 5]].astype(np.float32) / np.float32(scale))
    assert batch.dtype == torch.float32
    assert labels.tolist() == [5, 0, 5]
    torch.testing.assert_close(stored.batch(slice(2, 4))[0], stored.batch(torch.tensor([2, 3]))[0], rtol=0, atol=0)
    assert torch.equal(stored.x, x)


def test_a_batch_of_floats_is_the_stored_floats() -> None:
    x = torch.randn(6, 1, 2, 2)
    assert torch.equal(images(x, 1).batch(torch.tensor([3, 1]))[0], x[[3, 1]])


@pytest.mark.parametrize("kind", ["grey", "digits", "float"])
def test_moments_are_numpy_s(kind: str) -> None:
    scale = {"grey": 255, "digits": 16, "float": 1}[kind]
    shape = (300, 3, 70, 60)  # several chunks
    x = torch.randn(shape) * 3 + 10 if kind == "float" else torch.randint(0, scale + 1, shape, dtype=torch.uint8)
    x[:, 1] //= 2  # channels that differ
    values = x.numpy().astype(np.float64) / scale
    mean, std = images(x, scale).moments()
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6)


def test_no_float_copy_of_the_whole_set_is_ever_made() -> None:
    stored = images(torch.randint(0, 256, (8000, 1, 28, 28), dtype=torch.uint8))
    with Recorder() as recorder:
        stored.moments()
        stored.binarized("static", seed=0)
        stored.binarized("threshold", seed=0)
        rest, _ = split(stored, 1000, seed=0)
        for _ in Batches(rest, batch_size=128, training=True, resample=True):
            pass
    assert 0 < recorder.largest <= 2**20 < stored.x.numel() / 5


def test_the_support_of_integers_is_known_without_looking_and_that_of_floats_is_looked_up_once() -> None:
    grey, floats = images(torch.zeros(10, 1, 2, 2, dtype=torch.uint8)), images(torch.rand(10, 1, 2, 2), 1)
    with Recorder() as recorder:
        assert grey.support == "levels"
    assert recorder.operations == 0
    assert floats.support == "unit"
    with Recorder() as recorder:
        assert floats.support == "unit"
    assert recorder.operations == 0


def test_draws_have_their_probabilities() -> None:
    probs = torch.tensor([0.0, 1e-3, 0.25, 0.9, 1.0])
    draws = bernoulli(probs.expand(100_000, 5), torch.Generator().manual_seed(0))
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    means = draws.double().mean(0)
    assert means[0] == 0
    assert means[4] == 1
    deviation = (probs * (1 - probs) / 100_000).sqrt().double()
    assert (means - probs).abs().le(4.5 * deviation).all()


def test_static_binarisation_is_drawn_by_seed_with_the_grey_values_as_probabilities() -> None:
    grey = images(torch.tensor([0, 51, 204, 255], dtype=torch.uint8).view(1, 1, 2, 2).repeat(20_000, 1, 1, 1))
    drawn = grey.binarized("static", seed=3)
    assert (drawn.support, drawn.levels, drawn.x.dtype) == ("binary", 2, torch.uint8)
    x, _ = drawn.batch(slice(None))
    probs = torch.tensor([0, 0.2, 0.8, 1])
    torch.testing.assert_close(x.mean((0, 1)).flatten(), probs, rtol=0, atol=4.5 * 0.4 / 20_000**0.5)
    assert torch.equal(drawn.x, grey.binarized("static", seed=3).x)
    assert not torch.equal(drawn.x, grey.binarized("static", seed=4).x)


def test_threshold_is_one_from_a_half_on() -> None:
    grey = images(torch.tensor([[[[0, 127, 128, 255]]]], dtype=torch.uint8))
    assert grey.binarized("threshold", seed=0).x.flatten().tolist() == [0, 0, 1, 1]
    digits = images(torch.tensor([[[[7, 8]]]], dtype=torch.uint8), 16)
    assert digits.binarized("threshold", seed=0).x.flatten().tolist() == [0, 1]


@pytest.mark.parametrize("how", ["static", "threshold"])
def test_values_that_are_no_probabilities_cannot_be_binarised(how: str) -> None:
    with pytest.raises(ValueError, match=rf"data.binarize={how} .*outside \[0, 1\]; .*data.binarize=none"):
        images(torch.tensor([[[[0.0, 2.0]]]]), 1).binarized(how, seed=0)


def test_a_split_is_disjoint_complete_in_order_and_chosen_by_seed_alone(numbered) -> None:
    whole = numbered(101)
    rest, part = split(whole, 23, seed=5)
    assert len(part) == 23
    assert sorted(rest.y.tolist() + part.y.tolist()) == list(range(101))
    for side in (rest, part):
        assert side.y.tolist() == sorted(side.y.tolist())
        assert torch.equal(side.x, whole.x[side.y])
    assert split(whole, 23, seed=5)[1].y.tolist() == part.y.tolist()
    assert split(whole, 23, seed=6)[1].y.tolist() != part.y.tolist()


def test_a_choice_of_a_set_that_lies_class_by_class_has_all_classes_and_is_always_the_same(numbered) -> None:
    few = numbered(1000).choice(50)
    assert len(few) == 50
    assert torch.equal(few.y, few.y.sort().values)
    assert set((few.y // 100).tolist()) == set(range(10))
    assert torch.equal(few.y, numbered(1000).choice(50).y)
    assert torch.equal(numbered(20).choice(50).y, torch.arange(20))
