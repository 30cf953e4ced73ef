"""data.only_classes and data.without_classes: what is trained on; the test set keeps all classes."""

from __future__ import annotations

import pytest
import torch

from vaelab.data import ImageDataModule, Images
from vaelab.data.labels import chosen_classes, keep_classes
from vaelab.data.sources import Digits


def module(**options) -> ImageDataModule:
    data = ImageDataModule(source=Digits(), val_size=200, test_size=400, **options)
    data.setup()
    return data


def classes(data: ImageDataModule) -> dict[str, list[int]]:
    return {name: images.y[images.y >= 0].unique().tolist() for name, images in data.splits.items()}


def test_only_and_without_choose_training_and_validation_images() -> None:
    everything = list(range(10))
    assert classes(module(only_classes=[3])) == {"train": [3], "val": [3], "test": everything}
    rest = [0, 1, 2, 4, 6, 7, 8, 9]
    assert classes(module(without_classes=[3, 5])) == {"train": rest, "val": rest, "test": everything}


def test_splits_are_those_of_the_whole_set_less_the_other_classes() -> None:
    whole, part = module(), module(only_classes=[3, 4])
    for name in ("train", "val"):
        expected = torch.isin(whole.splits[name].y, torch.tensor([3, 4]))
        assert torch.equal(part.splits[name].x, whole.splits[name].x[expected])
    assert torch.equal(part.splits["test"].x, whole.splits["test"].x)
    assert part.num_classes == whole.num_classes == 10


def test_it_goes_with_few_labels_and_binarisation() -> None:
    data = module(only_classes=[3, 4], labels=20, binarize="static")
    train = data.splits["train"]
    assert (train.y == 3).sum() == (train.y == 4).sum() == 10
    assert train.scale == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only_classes": [3], "without_classes": [4]}, "exclude each other"),
        ({"only_classes": [10]}, r"data.only_classes must list some of the classes \[0, .*, 9\], but is \[10\]"),
        ({"without_classes": []}, r"data.without_classes must list some of the classes .*, but is \[\]"),
        ({"without_classes": list(range(10))}, "leaves out all of the classes"),
    ],
)
def test_impossible_choices_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_attributes_are_no_classes_and_a_split_cannot_be_empty() -> None:
    images = Images(x=torch.zeros(4, 1, 2, 2), y=torch.zeros(4, 3), scale=1)
    with pytest.raises(ValueError, match="these images have attributes"):
        chosen_classes(images, [0], None)
    with pytest.raises(ValueError, match=r"holds no image of the classes \[1\]; raise data.val_size"):
        keep_classes(Images(x=torch.zeros(4, 1, 2, 2), y=torch.zeros(4).long(), scale=1), [1])
