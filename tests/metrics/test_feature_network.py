"""The network whose features compare images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaelab.metrics.features import feature_network

CPU = torch.device("cpu")


def bars(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images of 8x8, in class 0 with a row and in class 1 with a column of ones somewhere."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.2 * torch.rand(number, 1, 8, 8, generator=generator)
    y = torch.arange(number) % 2
    where = torch.randint(8, (number,), generator=generator)
    for image, label, i in zip(x, y, where, strict=True):
        if label:
            image[0, :, i] = 1
        else:
            image[0, i] = 1
    return x, y


def test_it_learns_to_tell_the_classes_apart() -> None:
    network, _ = feature_network(*bars(200, 0), steps=60, device=CPU)
    x, y = bars(100, 1)
    assert (network.read(x)[1].argmax(1) == y).float().mean() > 0.9


def test_labels_of_other_images_teach_it_nothing() -> None:
    x, y = bars(200, 0)
    other = y[torch.randperm(200, generator=torch.Generator().manual_seed(5))]
    network, _ = feature_network(x, other, steps=60, device=CPU)
    x, y = bars(200, 1)
    assert abs((network.read(x)[1].argmax(1) == y).float().mean() - 0.5) < 0.2


def test_an_image_has_the_same_features_whatever_is_read_beside_it() -> None:
    network, _ = feature_network(*bars(100, 0), steps=3, device=CPU)
    x, _ = bars(30, 1)
    features, logits = network.read(x)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(network.read(x[order]), (features, logits), strict=True):
        torch.testing.assert_close(found, expected[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.read(x[4:5])[0], features[4:5], atol=1e-5, rtol=1e-5)


def test_features_are_standardised_on_the_training_images() -> None:
    x, y = bars(200, 0)
    features, _ = feature_network(x, y, steps=5, device=CPU)[0].read(x)
    assert features.mean(0).abs().max() < 1e-4
    assert torch.allclose(features.std(0), torch.ones(64), atol=1e-3)


def test_it_is_kept_and_read_again(tmp_path: Path) -> None:
    x, y = bars(100, 0)
    first, key = feature_network(x, y, steps=5, device=CPU, folder=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [f"features-{key}.pt"]
    again, _ = feature_network(x, y, steps=5, device=CPU, folder=tmp_path, progress=iter([]))
    assert torch.equal(first.read(x)[0], again.read(x)[0])


def test_it_depends_on_its_data_and_not_on_the_random_state() -> None:
    x, y = bars(100, 0)
    first, key = feature_network(x, y, steps=3, device=CPU)
    before = torch.get_rng_state()
    second, same = feature_network(x, y, steps=3, device=CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert key == same
    assert torch.equal(first.read(x)[0], second.read(x)[0])
    assert key != feature_network(x, 1 - y, steps=3, device=CPU)[1]
    assert key != feature_network(x, y, steps=4, device=CPU)[1]


@pytest.mark.parametrize("y", [torch.zeros(20).long(), torch.full((20,), -1), torch.rand(20, 3)])
def test_without_two_known_classes_it_stays_random(y: Tensor) -> None:
    x, _ = bars(20, 0)
    network, key = feature_network(x, y, steps=3, device=CPU)
    assert network.logits.out_features == 1
    assert key.startswith("random-")
    assert network.read(x)[0].std() > 0.1


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 9, 33), (2, 28, 28)])
def test_any_image_size_fits(shape: tuple[int, int, int]) -> None:
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    network, _ = feature_network(x, torch.arange(6) % 3, steps=1, device=CPU)
    assert network.read(x)[1].shape == (6, 3)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="needs training images"):
        feature_network(torch.zeros(0, 1, 8, 8), torch.zeros(0), steps=1, device=CPU)
    with pytest.raises(ValueError, match="every image needs a label, -1 for none, but there are 4 images and 3 labels"):
        feature_network(bars(4, 0)[0], torch.zeros(3), steps=1, device=CPU)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        feature_network(*bars(4, 0), steps=0, device=CPU)
