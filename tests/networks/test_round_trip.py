"""Every encoder and decoder at odd sizes: exact shapes, a gradient for every parameter, refusals."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import VAE, build_vae
from vaelab.networks import (
    ConvDecoder,
    ConvEncoder,
    Decoder,
    Encoder,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
)
from vaelab.objectives import ELBO
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 27, 31), (2, 9, 14)]
BATCH = 3

Pair = tuple[partial[Encoder], partial[Decoder]]


def conv(**settings: object) -> Pair:
    settings = {"channels": [6, 10], **settings}
    return partial(ConvEncoder, **settings), partial(ConvDecoder, **settings)


def conv_pool(**settings: object) -> Pair:
    settings = {"channels": [6, 10], **settings}
    return partial(ConvEncoder, downsample="pool", **settings), partial(ConvDecoder, upsample="nearest", **settings)


def resnet(**settings: object) -> Pair:
    settings = {"channels": [6, 10], **settings}
    return partial(ResNetEncoder, **settings), partial(ResNetDecoder, **settings)


def mlp(**settings: object) -> Pair:
    settings = {"hidden": [12, 7], **settings}
    return partial(MLPEncoder, **settings), partial(MLPDecoder, **settings)


PAIRS = {
    "conv": conv(),
    "conv, dense": conv(dense=[16]),
    "conv_pool": conv_pool(),
    "conv_pool, dense": conv_pool(dense=[16]),
    "resnet": resnet(),
    "mlp": mlp(),
    "conv to mlp": (conv()[0], mlp()[1]),
    "mlp to resnet": (mlp()[0], resnet()[1]),
}
VARIANTS = {
    **{f"conv, norm {norm}": conv(norm=norm) for norm in ("batch", "layer", "group")},
    **{f"conv, dense, norm {norm}": conv(norm=norm, dense=[16]) for norm in ("batch", "layer", "group")},
    **{f"resnet, norm {norm}": resnet(norm=norm) for norm in ("none", "batch", "layer")},
    **{f"mlp, norm {norm}": mlp(norm=norm) for norm in ("batch", "layer", "group")},
    "conv, dropout": conv(dropout=0.1, dense=[16]),
    "conv_pool, dropout": conv_pool(dropout=0.1),
    "resnet, dropout": resnet(dropout=0.1),
    "mlp, dropout": mlp(dropout=0.1),
    "resnet, two blocks": resnet(blocks=2),
    "conv, one stage": conv(channels=[5]),
    "resnet, one stage": resnet(channels=[5]),
    "conv, three stages": conv(channels=[4, 5, 6]),
    **{f"conv, {activation}": conv(activation=activation) for activation in ("leaky_relu", "elu", "gelu", "softplus")},
    **{f"mlp, {activation}": mlp(activation=activation) for activation in ("silu", "tanh")},
}
MAPS = {
    **{
        f"{name}, kernel {kernel}, stride {stride}": make(kernel=kernel, stride=stride)
        for name, make in (("conv", conv), ("conv_pool", conv_pool))
        for kernel in (3, 4, 5)
        for stride in (2, 3)
    },
    "resnet": resnet(),
    "conv to resnet": (conv_pool()[0], resnet()[1]),  # both halve, rounding down
}

# Even kernels of `padding="same"` make torch mention a copy.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def build(pair: Pair, x_shape: tuple[int, int, int], *, latent_map: bool = False) -> VAE:
    torch.manual_seed(0)
    encoder, decoder = pair
    return build_vae(
        x_shape=x_shape,
        latent_dim=2,
        latent_map=latent_map,
        encoder=encoder,
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=decoder,
        likelihood=BernoulliLikelihood(),
    )


def centres_channels(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) or (isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels)


def cancelled_biases(model: nn.Module) -> set[nn.Parameter]:
    """Biases in front of a normalisation that subtracts them again: their gradient is zero up to rounding."""
    return {
        first.bias
        for sequence in model.modules()
        if isinstance(sequence, nn.Sequential)
        for first, second in pairwise(sequence)
        if centres_channels(second) and isinstance(first, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    }


def check_round_trip(model: VAE, x_shape: tuple[int, int, int]) -> None:
    """The features, latents and parameters have the promised shapes, and one step of the ELBO moves every parameter."""
    x = torch.rand(BATCH, *x_shape)
    features = model.encoder(x)
    assert features.shape == (BATCH, *model.encoder.out_shape)
    z = model.sampler(features).rsample()
    assert z.shape == (BATCH, *model.latent_shape)
    assert model.decoder(z).shape == (BATCH, *x_shape) == (BATCH, *model.decoder.out_shape)
    loss, _ = ELBO()(model(x), 0)
    loss.backward()
    exempt = cancelled_biases(model)
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p in exempt or p.grad.any(), name


@pytest.mark.parametrize("x_shape", SHAPES, ids=str)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_every_pair_fits_every_image_and_every_parameter_learns(pair: Pair, x_shape: tuple[int, int, int]) -> None:
    check_round_trip(build(pair, x_shape), x_shape)


@pytest.mark.parametrize("pair", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_fits_an_odd_image_and_every_parameter_learns(pair: Pair) -> None:
    check_round_trip(build(pair, (2, 9, 14)), (2, 9, 14))


@pytest.mark.parametrize("x_shape", [(1, 27, 31), (2, 28, 14)], ids=str)
@pytest.mark.parametrize("pair", MAPS.values(), ids=MAPS)
def test_latent_maps_fit_at_every_kernel_and_stride(pair: Pair, x_shape: tuple[int, int, int]) -> None:
    model = build(pair, x_shape, latent_map=True)
    assert model.latent_shape == (2, *model.encoder.out_shape[1:])
    check_round_trip(model, x_shape)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_an_image_is_reconstructed_from_itself_alone(pair: Pair) -> None:
    """Neither encoder nor decoder mixes the examples of a batch (in evaluation)."""
    model, x = build(pair, (2, 9, 14)).eval(), torch.rand(BATCH, 2, 9, 14)
    alone = torch.cat([model.reconstruct(x[[i]]) for i in range(BATCH)])
    torch.testing.assert_close(alone, model.reconstruct(x))
    assert (alone[0] - alone[1]).abs().max() > 1e-6


# ---- dropout


def dropped(pair: Pair) -> VAE:
    encoder, decoder = pair
    return build((partial(encoder, dropout=0.5), partial(decoder, dropout=0.5)), (1, 8, 8))


@pytest.mark.parametrize("name", ["conv", "conv, dense", "conv_pool", "resnet", "mlp"])
def test_dropout_acts_in_training_only(name: str) -> None:
    model, plain, x = dropped(PAIRS[name]), build(PAIRS[name], (1, 8, 8)), torch.rand(BATCH, 1, 8, 8)
    parameters = zip(model.parameters(), plain.parameters(), strict=True)
    with torch.no_grad():
        for mine, theirs in parameters:
            theirs.copy_(mine)
        z = torch.randn(BATCH, 2)
        for part, other, given in ((model.encoder, plain.encoder, x), (model.decoder, plain.decoder, z)):
            assert not torch.equal(part(given), part(given))
            part.eval(), other.eval()
            torch.testing.assert_close(part(given), other(given))


# ---- published sizes


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_the_published_convolutional_vae_has_its_published_numbers_of_parameters() -> None:
    """Keras documentation: convolutions 32-64, dense 16, z = 2; its encoder holds the heads of the posterior."""
    encoder, decoder = partial(ConvEncoder, channels=[32, 64], dense=[16]), partial(ConvDecoder, channels=[32, 64])
    model = build((encoder, decoder), (1, 28, 28))
    assert count(model.encoder, model.sampler) == 69_076
    assert count(model.decoder) == 65_089


def test_the_published_mlp_vae_has_its_number_of_parameters() -> None:
    """784-400-20 and back: every dense layer with a bias."""
    model = build_vae(
        x_shape=(1, 28, 28),
        latent_dim=20,
        encoder=MLPEncoder,
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=MLPDecoder,
        likelihood=BernoulliLikelihood(),
    )
    assert count(model) == (784 + 1) * 400 + 2 * (400 + 1) * 20 + (20 + 1) * 400 + (400 + 1) * 784


def test_widths_are_given_from_the_data_towards_the_latents_in_both_directions() -> None:
    encoder = MLPEncoder(in_shape=(1, 3, 3), hidden=[12, 7])
    assert [m.out_features for m in encoder.modules() if isinstance(m, nn.Linear)] == [12, 7]
    decoder = MLPDecoder(in_shape=(2,), out_shape=(1, 3, 3), hidden=[12, 7])
    assert [m.out_features for m in decoder.modules() if isinstance(m, nn.Linear)] == [7, 12, 9]
    up = ConvDecoder(in_shape=(2,), out_shape=(1, 8, 8), channels=[4, 6], dense=[20, 10])
    assert [m.out_features for m in up.modules() if isinstance(m, nn.Linear)] == [10, 20, 6 * 2 * 2]
    assert [m.out_channels for m in up.modules() if isinstance(m, nn.ConvTranspose2d)] == [6, 4, 1]


# ---- refusals


@pytest.mark.parametrize(
    "make",
    [
        partial(ConvEncoder, in_shape=(1, 8, 8), channels=[4] * 5, kernel=4),
        partial(ConvEncoder, in_shape=(1, 8, 8), channels=[4] * 4, downsample="pool"),
        partial(ConvEncoder, in_shape=(1, 8, 2), channels=[4] * 2, downsample="pool"),
        partial(ConvDecoder, in_shape=(2,), out_shape=(1, 8, 8), channels=[4] * 5, kernel=4),
        partial(ConvDecoder, in_shape=(2,), out_shape=(1, 8, 8), channels=[4] * 4, upsample="nearest"),
        partial(ResNetEncoder, in_shape=(1, 8, 8), channels=[4] * 4),
        partial(ResNetDecoder, in_shape=(2,), out_shape=(1, 8, 8), channels=[4] * 4),
    ],
)
def test_an_image_too_small_for_its_stages_is_refused(make: partial[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"an image of 8x[28] is too small for [245] stages of stride 2: stage"):
        make()


@pytest.mark.parametrize("network", [ConvDecoder, ResNetDecoder])
def test_a_latent_map_of_another_size_is_refused(network: type[Decoder]) -> None:
    with pytest.raises(ValueError, match=r"starts from a map of 2x2, but the latent map is 4x4"):
        network(in_shape=(2, 4, 4), out_shape=(1, 8, 8), channels=[4, 4])


def test_dense_layers_behind_a_latent_map_are_refused() -> None:
    with pytest.raises(ValueError, match=r"choose model.decoder.dense=\[\] or model.latent_map=false"):
        ConvDecoder(in_shape=(2, 2, 2), out_shape=(1, 8, 8), channels=[4, 4], dense=[8])


ENCODERS = [partial(e, in_shape=(1, 8, 8)) for e in (ConvEncoder, ResNetEncoder, MLPEncoder)]
DECODERS = [partial(d, in_shape=(2,), out_shape=(1, 8, 8)) for d in (ConvDecoder, ResNetDecoder, MLPDecoder)]


@pytest.mark.parametrize("make", [*ENCODERS, *DECODERS])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activation": "rellu"}, "activation must be one of .*'rellu'; did you mean 'relu'"),
        ({"norm": "batchnorm"}, "norm must be one of none, batch, .*'batchnorm'; did you mean 'batch'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), but is 1.0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), but is -0.1"),
    ],
)
def test_an_impossible_setting_is_refused(make: partial[nn.Module], wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**wrong)


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (ENCODERS[0], {"channels": [4, 0]}, r"channels\[1\] must be a whole number of at least 1, but is 0"),
        (ENCODERS[0], {"channels": []}, "channels needs at least one stage"),
        (ENCODERS[0], {"kernel": 0}, "kernel must be a whole number"),
        (ENCODERS[0], {"stride": 1.5}, "stride must be a whole number .*1.5"),
        (ENCODERS[0], {"dense": [16, -1]}, r"dense\[1\] must be a whole number"),
        (ENCODERS[0], {"downsample": "max"}, "downsample must be one of conv, pool, but is 'max'"),
        (ENCODERS[0], {"in_shape": (8, 8)}, r"in_shape must be \(channels, height, width\), but is \(8, 8\)"),
        (ENCODERS[1], {"blocks": 0}, "blocks must be a whole number"),
        (ENCODERS[2], {"hidden": []}, "hidden needs at least one width"),
        (DECODERS[0], {"channels": []}, "channels needs at least one stage"),
        (DECODERS[0], {"upsample": "pool"}, "upsample must be one of conv, nearest, but is 'pool'"),
        (DECODERS[0], {"out_shape": (1, 8, 0)}, r"out_shape\[2\] must be a whole number"),
        (DECODERS[1], {"blocks": 1.0}, "blocks must be a whole number"),
        (DECODERS[2], {"hidden": []}, "hidden needs at least one width"),
    ],
)
def test_an_impossible_setting_of_one_network_is_refused(
    make: partial[nn.Module], wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**wrong)
