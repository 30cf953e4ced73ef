"""Splits, binarisation and normalisation: what the data module makes of a source."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vaelab.data import ImageDataModule, Images
from vaelab.data.sources import Digits, TorchvisionSource

Numbered = Callable[..., Images]
Module = Callable[..., ImageDataModule]


def labels(data: ImageDataModule) -> dict[str, list[int]]:
    return {name: images.y.tolist() for name, images in data.splits.items()}


def sizes(data: ImageDataModule) -> dict[str, int]:
    return {name: len(images) for name, images in data.splits.items()}


def grey(n: int, channels: int = 1, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, channels, 4, 4), dtype=torch.uint8, generator=generator)
    return Images(x=x, y=torch.arange(n) % 10)


def test_validation_is_cut_from_the_training_set_and_the_official_test_set_is_left_alone(numbered, module) -> None:
    data = module(numbered(100), numbered(30, first=100), val_size=20)
    split = labels(data)
    assert len(split["val"]) == 20
    assert sorted(split["train"] + split["val"]) == list(range(100))
    assert split["test"] == list(range(100, 130))


def test_the_official_test_set_is_never_trained_on_or_selected_on(numbered, module) -> None:
    data = module(numbered(50), numbered(50, first=50), val_size=0.2)
    seen = [int(i) for loader in (data.train_dataloader(), data.val_dataloader()) for _, y in loader for i in y]
    assert sorted(seen) == list(range(50))
    assert sorted(int(i) for _, y in data.test_dataloader() for i in y) == list(range(50, 100))


def test_a_test_set_that_has_to_be_cut_off_is_the_same_for_every_seed(numbered, module) -> None:
    splits = [
        labels(module(numbered(100), test_size=0.2, val_size=10, split_seed=split_seed, seed=seed))
        for split_seed, seed in ((0, 0), (1, 0), (0, 1))
    ]
    for split in splits:
        assert sorted(split["train"] + split["val"] + split["test"]) == list(range(100))
        assert split["test"] == splits[0]["test"]
        assert len(split["test"]) == 20
    assert splits[1]["val"] != splits[0]["val"]
    assert splits[2]["val"] == splits[0]["val"]


def test_splits_do_not_depend_on_batch_size_or_devices(numbered, module) -> None:
    first = module(numbered(100), batch_size=128)
    second = module(numbered(100), batch_size=3, eval_batch_size=7, device="cpu", seed=5)
    assert labels(second) == labels(first)
    shards = [first._batches("val", torch.device("cpu"), rank=rank, world_size=3) for rank in range(3)]
    assert sorted(int(i) for shard in shards for _, y in shard for i in y) == labels(first)["val"]


def test_mnist_is_split_into_55000_5000_and_10000(mnist_root) -> None:
    data = ImageDataModule(source=TorchvisionSource(name="MNIST", root=str(mnist_root)))
    data.setup()
    assert sizes(data) == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert (data.x_shape, data.support, data.levels, data.num_classes) == ((1, 28, 28), "levels", 256, 10)


def test_digits_come_with_scikit_learn() -> None:
    data = ImageDataModule(source=Digits(), val_size=200, test_size=400)
    data.setup()
    assert sizes(data) == {"train": 1197, "val": 200, "test": 400}
    assert (data.x_shape, data.support, data.levels, data.num_classes) == ((1, 8, 8), "levels", 17, 10)
    x = torch.cat([images.x for images in data.splits.values()])
    assert (int(x.min()), int(x.max())) == (0, 16)


def test_setup_reads_once(numbered, module) -> None:
    data = module(numbered(20))
    before = data.splits["train"]
    data.setup("fit")
    assert data.splits["train"] is before


@pytest.mark.parametrize("eval_batch_size", [1, 7, 1000])
def test_the_evaluation_batch_size_changes_no_figure(module, eval_batch_size: int) -> None:
    data = module(grey(50), grey(31, seed=1), binarize="dynamic", eval_batch_size=eval_batch_size)
    reference = module(grey(50), grey(31, seed=1), binarize="dynamic", eval_batch_size=31)
    for loader in ("val_dataloader", "test_dataloader"):
        mine, other = (torch.cat([x for x, _ in getattr(d, loader)()]) for d in (data, reference))
        assert torch.equal(mine, other)


@pytest.mark.parametrize("binarize", ["static", "threshold"])
def test_static_and_threshold_are_the_same_at_every_epoch(module, binarize: str) -> None:
    data = module(grey(64), grey(16, seed=1), binarize=binarize, batch_size=16)
    assert (data.support, data.levels) == ("binary", 2)
    epochs = []
    for _ in range(2):
        batches = list(data.train_dataloader())
        order = torch.cat([y for _, y in batches])
        epochs.append(torch.cat([x for x, _ in batches])[order.argsort(stable=True)])
    assert torch.equal(*epochs)
    assert set(epochs[0].unique().tolist()) == {0.0, 1.0}


def test_dynamic_resamples_training_images_at_every_epoch_and_fixes_the_others(module) -> None:
    data = module(grey(64), grey(16, seed=1), binarize="dynamic", batch_size=64)
    assert (data.support, data.levels) == ("binary", 2)
    train = data.train_dataloader()
    first, second = (dict(zip(y.tolist(), x, strict=True)) for _ in range(2) for x, y in train)
    assert any(not torch.equal(first[i], second[i]) for i in first)
    for loader in (data.val_dataloader, data.test_dataloader):
        (a, _), (b, _) = next(iter(loader())), next(iter(loader()))
        assert torch.equal(a, b)
        assert set(a.unique().tolist()) == {0.0, 1.0}


def test_static_draws_belong_to_the_split_seed_and_differ_between_splits(module) -> None:
    same = Images(x=torch.full((40, 1, 4, 4), 128, dtype=torch.uint8), y=torch.zeros(40).long())
    a, b, c = (
        module(same, same, binarize="static", val_size=20, split_seed=split_seed, seed=seed)
        for split_seed, seed in ((0, 0), (0, 1), (1, 0))
    )
    for name in ("train", "val", "test"):
        assert torch.equal(a.splits[name].x, b.splits[name].x)
        assert not torch.equal(a.splits[name].x, c.splits[name].x)
    assert not torch.equal(a.splits["train"].x, a.splits["val"].x)
    assert not torch.equal(a.splits["val"].x, a.splits["test"].x[:20])


@pytest.mark.parametrize("binarize", ["dynamic", "static", "threshold"])
def test_data_outside_the_unit_interval_cannot_be_binarised(module, binarize: str) -> None:
    real = Images(x=torch.randn(20, 1, 2, 2), y=torch.zeros(20).long(), scale=1)
    with pytest.raises(ValueError, match=rf"data.binarize={binarize} .*outside \[0, 1\]"):
        module(real, binarize=binarize)


def test_a_failed_setup_leaves_no_half_of_it(module) -> None:
    unit = Images(x=torch.rand(20, 1, 2, 2), y=torch.zeros(20).long(), scale=1)
    real = Images(x=torch.randn(20, 1, 2, 2), y=torch.zeros(20).long(), scale=1)
    data = ImageDataModule(source=module(unit, real).source, val_size=5, binarize="static")
    for _ in range(2):
        with pytest.raises(ValueError, match="outside"):
            data.setup()
    assert data.splits == {}


def test_normalisation_changes_nothing_that_is_scored(module) -> None:
    options = {"val_size": 10, "batch_size": 30}
    plain, standard = (module(grey(40), normalize=how, **options) for how in ("none", "standard"))
    assert plain.moments == ([0.0], [1.0])
    (a, _), (b, _) = next(iter(plain.train_dataloader())), next(iter(standard.train_dataloader()))
    assert torch.equal(a, b)
    assert (standard.support, standard.levels) == (plain.support, plain.levels) == ("levels", 256)


def test_measured_moments_are_those_of_the_training_split_alone(module) -> None:
    train, test = grey(60, channels=3), grey(60, channels=3, seed=1)
    test.x.fill_(255)
    data = module(train, test, normalize="standard", val_size=20)
    values = data.splits["train"].x.numpy().astype(np.float64) / 255
    mean, std = data.moments
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_moments_of_binarised_data_are_those_of_the_draws(module, binarize: str) -> None:
    data = module(grey(2000), normalize="standard", binarize=binarize, val_size=10)
    x = torch.cat([x for _ in range(3) for x, _ in data.train_dataloader()])
    mean, std = data.moments
    assert mean[0] == pytest.approx(x.mean().item(), abs=4.5 * 0.5 / x.numel() ** 0.5)
    assert std[0] == pytest.approx(x.std().item(), abs=1e-3)


def test_given_moments_are_used(module) -> None:
    assert module(grey(20), normalize="standard", mean=[0.1307], std=[0.3081]).moments == ([0.1307], [0.3081])
    mean, std = module(grey(20), normalize="standard", mean=[0.25]).moments
    assert mean == [0.25]
    assert std == module(grey(20), normalize="standard").moments[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": [0.1, 0.2]}, r"data.mean needs one number for each of 1 channels, but is \[0.1, 0.2\]"),
        ({"std": []}, r"data.std needs one number for each of 1 channels, but is \[\]"),
        ({"std": [float("nan")]}, r"data.std needs one number .* \[nan\]"),
        ({"std": [0.0]}, r"data.std must be above 0, but is \[0.0\]; use data.normalize=none"),
    ],
)
def test_wrong_moments_are_refused(module, options: dict, message: str) -> None:
    data = module(grey(20), normalize="standard", **options)
    with pytest.raises(ValueError, match=message):
        data.moments  # noqa: B018


def test_a_constant_channel_cannot_be_normalised(module) -> None:
    flat = Images(x=torch.full((20, 1, 2, 2), 7, dtype=torch.uint8), y=torch.zeros(20).long())
    with pytest.raises(ValueError, match=r"data.std must be above 0.*data.normalize=none for constant channels"):
        module(flat, normalize="standard").moments  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_size": 0}, r"data.val_size=0 of 80 images leaves a split empty \(memory\); choose 1 to 79 of them"),
        ({"val_size": 80}, "data.val_size=80 of 80 images leaves a split empty"),
        ({"val_size": 5000}, "data.val_size=5000 of 80 images leaves a split empty"),
        ({"val_size": -3}, "data.val_size=-3 of 80 images leaves a split empty"),
        ({"val_size": 0.01}, "data.val_size=0.01 of 80 images leaves a split empty"),
        ({"val_size": 1.0}, "data.val_size must be a whole number or a fraction between 0 and 1, but is 1.0"),
        ({"val_size": -0.5}, "data.val_size must be a whole number or a fraction between 0 and 1, but is -0.5"),
        ({"val_size": float("nan")}, "data.val_size must be a whole number or a fraction between 0 and 1, but is nan"),
        ({"val_size": True}, "data.val_size must be a whole number or a fraction between 0 and 1, but is True"),
        ({"test_size": 0}, "data.test_size=0 of 100 images leaves a split empty"),
        ({"test_size": 100}, "data.test_size=100 of 100 images leaves a split empty"),
        ({"test_size": 99}, r"data.val_size=0.1 of 1 images leaves a split empty \(memory\); use more images"),
    ],
)
def test_a_size_that_leaves_a_split_empty_is_refused(numbered, module, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(numbered(100), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be a whole number of at least 1, but is 0"),
        ({"eval_batch_size": -1}, "data.eval_batch_size must be a whole number of at least 1, but is -1"),
        ({"binarize": "dynamc"}, "data.binarize must be one of .*, but is 'dynamc'; did you mean 'dynamic'"),
        ({"normalize": "zscore"}, "data.normalize must be one of none, standard, but is 'zscore'"),
        ({"device": "cuda"}, "data.device must be one of auto, cpu, but is 'cuda'"),
        ({"seed": -1}, "data.seed must be a whole number of at least 0, but is -1"),
        ({"split_seed": 0.5}, "data.split_seed must be a whole number of at least 0, but is 0.5"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(numbered, module, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(numbered(100), **options)


def test_training_and_test_images_that_differ_in_kind_are_refused(module) -> None:
    floats = Images(x=torch.rand(10, 1, 4, 4), y=torch.zeros(10).long(), scale=1)
    for test, kind in ((grey(10, channels=3), "4x4x3 with 256"), (floats, "4x4x1 with floating-point")):
        with pytest.raises(
            ValueError, match=f"memory: training images are 4x4x1 with 256 values, but test images {kind} values; make"
        ):
            module(grey(20), test)


def test_every_process_reads_its_own_shard(numbered, module) -> None:
    seen: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for rank in range(3):
        data = module(numbered(54), numbered(31, first=54), val_size=17, batch_size=4, eval_batch_size=4)
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(strategy=strategy, global_rank=rank, world_size=3, overfit_batches=0)
        loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
        for name, loader in zip(seen, loaders, strict=True):
            seen[name] += [int(label) for _, y in loader for label in y]
    for name, images in data.splits.items():
        left_out = set(images.y.tolist()) - set(seen[name])
        assert len(seen[name]) == len(set(seen[name]))
        assert set(seen[name]) <= set(images.y.tolist())
        assert len(left_out) == (1 if name == "train" else 0)


def test_fewer_training_images_than_devices_are_refused(numbered, module) -> None:
    data = module(numbered(10), numbered(5))
    assert data.steps_per_epoch(9) == 1
    with pytest.raises(ValueError, match=r"9 training images cannot be shared by 10 devices; .*trainer.devices"):
        data.steps_per_epoch(10)


def test_fewer_evaluation_images_than_devices_leave_some_without_work_but_none_waiting(numbered, module) -> None:
    data = module(numbered(10), numbered(2))
    shards = [data._batches("test", torch.device("cpu"), rank=rank, world_size=4) for rank in range(4)]
    assert [[y.tolist() for _, y in shard] for shard in shards] == [[[0]], [[1]], [[]], [[]]]


@pytest.mark.parametrize(("device", "kept"), [("auto", "meta"), ("cpu", "cpu")])
def test_a_batch_is_converted_on_the_device_of_the_model(numbered, module, device: str, kept: str) -> None:
    data = module(numbered(20), numbered(5), device=device)
    # "meta" stands for an accelerator: its tensors have a place and a type, but no values.
    batches = data._batches("test", torch.device("meta"), rank=0, world_size=1)
    assert (batches.images.x.device.type, batches.images.x.dtype) == (kept, torch.uint8)
    with FloatsOnCPU() as floats:
        (x, y), *_ = batches
    assert (x.device.type, y.device.type, x.dtype) == ("meta", "meta", torch.float32)
    assert floats.count == 0
    assert data.splits["test"].x.device.type == "cpu"


class FloatsOnCPU(TorchDispatchMode):
    """Counts the floating-point tensors that are made on the CPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += isinstance(result, torch.Tensor) and result.is_floating_point() and result.device.type == "cpu"
        return result


@pytest.mark.parametrize(("world_size", "steps"), [(1, 12), (2, 6), (3, 4), (7, 2), (11, 1)])
def test_steps_per_epoch_counts_the_training_batches(numbered, module, world_size: int, steps: int) -> None:
    data = module(numbered(91), numbered(5), val_size=1, batch_size=8)
    batches = data._batches("train", torch.device("cpu"), rank=0, world_size=world_size)
    assert data.steps_per_epoch(world_size) == len(list(batches)) == steps


def test_classes_are_counted_over_all_splits(module) -> None:
    train = Images(x=grey(20).x, y=torch.zeros(20).long())
    test = Images(x=grey(5).x, y=torch.full((5,), 6))
    assert module(train, test).num_classes == 7


def test_the_support_is_the_widest_of_all_splits(module) -> None:
    values = torch.rand(20, 1, 2, 2), torch.randn(20, 1, 2, 2)
    unit, real = (Images(x=x, y=torch.zeros(20).long(), scale=1) for x in values)
    assert module(unit, unit).support == "unit"
    assert module(unit, real).support == "real"
