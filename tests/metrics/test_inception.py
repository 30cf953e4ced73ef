"""The optional ImageNet features; their weights are random here, because nothing may be downloaded."""

from urllib.error import URLError

import pytest
import torch
from torchvision.models import inception_v3

from vaelab.metrics import inception
from vaelab.metrics.inception import InceptionFeatures

CPU = torch.device("cpu")


def test_grey_images_are_seen_as_coloured_ones_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(inception, "inception_v3", lambda weights: inception_v3(init_weights=False))
    monkeypatch.setattr(inception, "BATCH", 2)
    network, grey = InceptionFeatures(CPU), torch.rand(3, 1, 8, 8)
    features = network.embed(grey)
    assert features.shape == (3, 2048)
    apart = (features[0] - features[1]).abs().max().item()
    assert apart > 1e-3 * features.abs().max()
    torch.testing.assert_close(network.embed(grey.repeat(1, 3, 1, 1)), features, atol=0.01 * apart, rtol=0)
    torch.testing.assert_close(network.embed(grey.flip(0)), features.flip(0), atol=0.01 * apart, rtol=0)


def test_without_its_weights_it_says_what_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(inception, "inception_v3", refuse)
    with pytest.raises(ValueError, match=r"could not be had .*no route to host.*choose features=own"):
        InceptionFeatures(CPU)
