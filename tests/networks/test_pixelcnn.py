"""The gated PixelCNN sees every earlier pixel and no later one; drawing pixel by pixel agrees with scoring at once."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from vaelab.networks import ConvDecoder, GatedPixelCNN, MLPDecoder, PixelCNNDecoder

H, W = 7, 8


def network(**settings: int) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(**{"in_channels": 1, "out_channels": 1, "channels": 6, "layers": 2, **settings}).double()


def influence(net: GatedPixelCNN, inputs: int) -> Tensor:
    """Whether the output at pixel (r, c) has a derivative by the input at (i, j), (H, W, H, W)."""
    jacobians = [
        torch.autograd.functional.jacobian(lambda x: net(x).sum((0, 1)), torch.rand(1, inputs, H, W).double())
        for _ in range(2)
    ]
    return torch.stack(jacobians).abs().sum((0, 3, 4)) > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 1, "first_kernel": 3},
        {"layers": 2, "first_kernel": 3},
        {"layers": 3, "first_kernel": 3},
        {"layers": 2, "first_kernel": 5, "kernel": 5},
        {"layers": 2, "in_channels": 2, "out_channels": 3},
    ],
    ids=str,
)
def test_a_pixel_depends_on_all_earlier_pixels_within_reach_and_on_no_other(settings: dict[str, int]) -> None:
    net = network(**settings)
    seen = influence(net, net.in_channels)
    for r in range(H):
        for c in range(W):
            for i in range(H):
                for j in range(W):
                    earlier = (i, j) < (r, c)
                    near = r - i <= net.reach and abs(c - j) <= net.reach
                    assert seen[r, c, i, j] == (earlier and near), (r, c, i, j)


def test_the_map_steers_every_pixel_and_those_whose_context_it_changes() -> None:
    net = network(condition_channels=2)
    x, s = torch.rand(1, 1, H, W).double(), torch.randn(1, 2, H, W).double()
    changed = torch.autograd.functional.jacobian(lambda s: net(x, s).sum((0, 1)), s).abs().sum((2, 3))
    assert (changed.flatten(0, 1).flatten(1).diagonal() > 0).all()


@pytest.mark.parametrize("settings", [{"layers": 1}, {"layers": 3}, {"layers": 2, "first_kernel": 3, "kernel": 5}])
def test_generating_on_crops_is_generating_on_the_whole(settings: dict[str, int]) -> None:
    """The output at a pixel is the same whether the network sees its receptive field or everything."""
    net = network(condition_channels=2, in_channels=2, out_channels=3, **settings)
    s, outputs = torch.randn(4, 2, H, W).double(), torch.zeros(4, 3, H, W).double()

    def draw(out: Tensor, row: int, column: int) -> Tensor:
        outputs[:, :, row, column] = out[..., 0, 0]
        return torch.rand(4, 2, 1, 1).double()

    x = net.generate(draw, (4, H, W), s)
    assert (x != 0).all()
    torch.testing.assert_close(outputs, net(x, s).detach())


def test_draws_follow_the_probabilities() -> None:
    """All 2^6 images of 2 x 3 pixels: their probabilities sum to one, and they are drawn that often."""
    net = network(layers=2, first_kernel=3).requires_grad_(False)
    for p in net.parameters():
        p *= 3  # away from a fair coin for every pixel
    count = 40_000
    x = net.generate(lambda out, row, column: Bernoulli(logits=out).sample(), (count, 2, 3))
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6).view(64, 1, 2, 3)
    p = Bernoulli(logits=net(images)).log_prob(images).sum((1, 2, 3)).exp()
    torch.testing.assert_close(p.sum(), torch.ones(()).double())
    places = (x.flatten(1) @ (2.0 ** torch.arange(5, -1, -1)).double()).long()
    frequencies = torch.bincount(places, minlength=64) / count
    assert ((frequencies - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-4).all()
    assert p.max() > 4 / 64


def test_every_parameter_gets_a_gradient() -> None:
    net = network(layers=3, condition_channels=2)
    net(torch.rand(2, 1, H, W).double(), torch.randn(2, 2, H, W).double()).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="first_kernel must be odd and at least 3, but is 4"):
        network(first_kernel=4)
    with pytest.raises(ValueError, match="kernel must be odd and at least 3, but is 1"):
        network(kernel=1)
    with pytest.raises(ValueError, match="layers must be a whole number of at least 1, but is 0"):
        network(layers=0)


# ---- the decoder


def decoder(**more: object) -> PixelCNNDecoder:
    torch.manual_seed(0)
    settings = {
        "in_shape": (3,),
        "out_shape": (4, H, W),
        "x_shape": (2, H, W),
        "inner": partial(ConvDecoder, channels=[4]),
        "condition_channels": 5,
        "channels": 6,
        "layers": 2,
    }
    return PixelCNNDecoder(**{**settings, **more}).double()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"inner": partial(MLPDecoder, hidden=[8])},
        {"in_shape": (3, 4, 4)},
        {"context_dim": 2},
        {"context_dim": 2, "conditioning": "film"},
    ],
    ids=str,
)
def test_latents_and_context_reach_every_pixel_and_every_parameter_learns(more: dict[str, object]) -> None:
    net = decoder(**more)
    z = torch.randn(5, *net.in_shape).double().requires_grad_()
    context = torch.randn(5, 2).double().requires_grad_() if "context_dim" in more else None
    if more.get("conditioning") == "film":  # starts as the identity
        for p in net.inner.parameters():
            p.data += 0.1 * torch.randn_like(p)
    out = net(z, context, x=torch.rand(5, 2, H, W).double())
    assert out.shape == (5, 4, H, W)
    out.square().sum().backward()
    given = {"z": z} if context is None else {"z": z, "context": context}
    for name, p in {**dict(net.named_parameters()), **given}.items():
        assert p.grad is not None, name
        assert p.grad.any(), name


def test_an_image_of_another_shape_or_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"x_shape=\(3, 7, 8\) does not fit likelihood parameters of shape \(4, 7, 8\)"
    ):
        decoder(x_shape=(3, H, W))
    with pytest.raises(ValueError, match=r"needs the image, decoder\(z, x=x\), but none is given; choose"):
        decoder()(torch.zeros(2, 3).double())
