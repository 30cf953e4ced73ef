"""Discriminators: one logit for each, for anything of any size."""

import pytest
import torch

from vaelab.networks import ConvDiscriminator, MLPDiscriminator


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (8, 8), (28, 28), (33, 17)])
def test_stages_halve_down_to_4(size):
    torch.manual_seed(0)
    network = ConvDiscriminator(in_shape=(3, *size), channels=[4, 5, 6, 7])
    height, width = size
    for _ in range(4):
        height, width = (n if n <= 4 else -(-n // 2) for n in (height, width))
    x = torch.rand(2, 3, *size)
    assert network.features(x).shape == (2, 7 * height * width)
    assert network(x).shape == (2,)


def test_batch_norm_takes_a_batch_of_one():
    x = torch.rand(1, 1, 8, 8)
    assert ConvDiscriminator(in_shape=(1, 8, 8), channels=[4, 4, 4, 4], norm="batch").train()(x).isfinite().all()


def test_every_example_gets_its_own_logit():
    torch.manual_seed(0)
    mlp = MLPDiscriminator(in_shape=(2, 3, 3), hidden=[8, 4])
    conv = ConvDiscriminator(in_shape=(2, 3, 3), channels=[4, 4], norm="none")
    x = torch.rand(5, 2, 3, 3)
    for network in (mlp, conv):
        torch.testing.assert_close(network(x)[3], network(x[3:4])[0])
        assert len(set(network(x).tolist())) == 5


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (MLPDiscriminator, {"in_shape": [2], "hidden": []}, "hidden needs at least one width"),
        (ConvDiscriminator, {"in_shape": (1, 8, 8), "channels": []}, "channels needs at least one stage"),
        (ConvDiscriminator, {"in_shape": (1, 8, 8), "kernel": 4}, "kernel must be odd, but is 4"),
        (ConvDiscriminator, {"in_shape": (1, 8, 8), "norm": "btach"}, "did you mean 'batch'"),
        (ConvDiscriminator, {"in_shape": (8, 8)}, r"in_shape must be \(channels, height, width\)"),
    ],
)
def test_impossible_sizes_are_refused(network, settings, message):
    with pytest.raises(ValueError, match=message):
        network(**settings)
