"""The layers that networks share: sizes of stages, normalisation, residual blocks, resizing."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from vaelab.networks import ConvDecoder
from vaelab.networks.base import ACTIVATIONS, activation_layer, dense_layers, norm_layer
from vaelab.networks.conv import stage_sizes
from vaelab.networks.resnet import ResidualBlock, Resize

# ---- sizes


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_stage_sizes_are_those_of_the_layers(kernel: int, stride: int) -> None:
    for n in range(6, 30, 5):
        size = (n, n + 3)
        x = torch.zeros(1, 1, *size)
        conv = nn.Conv2d(1, 1, kernel, stride=stride, padding=(kernel - 1) // 2)
        assert stage_sizes(size, count=1, kernel=kernel, stride=stride, resample="conv") == [size, conv(x).shape[2:]]
        pool = nn.MaxPool2d(stride)
        assert stage_sizes(size, count=1, kernel=kernel, stride=stride, resample="pool") == [size, pool(x).shape[2:]]


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolutions_retrace_every_size(kernel: int, stride: int) -> None:
    for n in range(17, 26):
        decoder = ConvDecoder(in_shape=(1,), out_shape=(1, n, n + 2), channels=[1, 1], kernel=kernel, stride=stride)
        assert decoder(torch.zeros(1, 1)).shape == (1, 1, n, n + 2)


def test_an_empty_stage_is_named() -> None:
    assert stage_sizes((8, 8), count=3, kernel=2, stride=2, resample="pool") == [(8, 8), (4, 4), (2, 2), (1, 1)]
    with pytest.raises(ValueError, match="8x8 is too small for 5 stages of stride 2: stage 4 would be empty"):
        stage_sizes((8, 8), count=5, kernel=2, stride=2, resample="pool")


# ---- normalisation and activation


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (12, 6), (10, 5), (17, 1)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    layer = norm_layer("group", channels, spatial=True)
    assert isinstance(layer, nn.GroupNorm)
    assert layer.num_groups == groups


@pytest.mark.parametrize("spatial", [True, False])
def test_layer_norm_standardises_every_example(spatial: bool) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(4, 6, 5, 5) + 2 if spatial else 3 * torch.randn(4, 6) + 2
    over = tuple(range(1, x.ndim))  # all channels and places together
    wanted = (x - x.mean(over, keepdim=True)) / x.var(over, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(norm_layer("layer", 6, spatial=spatial)(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spatial", [True, False])
def test_batch_norm_standardises_every_channel_over_the_batch(spatial: bool) -> None:
    torch.manual_seed(0)
    x = 3 * torch.randn(8, 6, 5, 5) + 2 if spatial else 3 * torch.randn(8, 6) + 2
    y = norm_layer("batch", 6, spatial=spatial)(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(6), rtol=1e-3, atol=0)


def test_no_norm_is_no_layer() -> None:
    assert norm_layer("none", 4, spatial=True) is None
    assert [type(m) for m in dense_layers(3, [5], activation="relu", norm="none", dropout=0.0)] == [nn.Linear, nn.ReLU]


def test_dense_layers_come_in_the_order_linear_norm_activation_dropout() -> None:
    layers = dense_layers(3, [5, 4], activation="silu", norm="layer", dropout=0.2)
    assert [type(m) for m in layers] == 2 * [nn.Linear, nn.LayerNorm, nn.SiLU, nn.Dropout]
    assert [(m.in_features, m.out_features) for m in layers if isinstance(m, nn.Linear)] == [(3, 5), (5, 4)]
    assert {m.p for m in layers if isinstance(m, nn.Dropout)} == {0.2}


def test_activations_are_what_their_names_say() -> None:
    x = torch.linspace(-3, 3, 7)
    wanted = {
        "relu": x.clamp(min=0),
        "leaky_relu": torch.where(x > 0, x, 0.01 * x),
        "elu": torch.where(x > 0, x, x.exp() - 1),
        "gelu": x * torch.special.ndtr(x),
        "silu": x * x.sigmoid(),
        "softplus": x.exp().log1p(),
        "tanh": x.tanh(),
    }
    assert set(wanted) == set(ACTIVATIONS)
    for name, value in wanted.items():
        torch.testing.assert_close(activation_layer(name)(x), value)


# ---- residual blocks


@pytest.mark.parametrize(("c_in", "c_out"), [(4, 4), (4, 6)])
def test_a_residual_block_is_its_skip_when_the_residual_is_silent(c_in: int, c_out: int) -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(c_in, c_out, activation="relu", norm="layer", dropout=0.0), torch.randn(2, c_in, 5, 7)
    assert (block(x) - block.skip(x)).abs().max() > 0.01
    last = block.residual[-1]
    nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    torch.testing.assert_close(block(x), block.skip(x))
    assert isinstance(block.skip, nn.Identity) == (c_in == c_out)


def test_resizing_down_averages_and_up_repeats() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(Resize((2, 3))(x), avg_pool2d(x, 2))
    torch.testing.assert_close(Resize((8, 12))(x), x.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert Resize((5, 7))(torch.zeros(1, 1, 11, 15)).shape == (1, 1, 5, 7)
    assert Resize((11, 15))(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 11, 15)
    constant = torch.full((1, 1, 11, 15), 2.5)
    torch.testing.assert_close(Resize((5, 7))(constant), torch.full((1, 1, 5, 7), 2.5))
