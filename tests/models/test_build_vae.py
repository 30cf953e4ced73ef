"""Parts fitted together: the data's shape decides every other size."""

from functools import partial

import pytest
import torch

from vaelab.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from vaelab.models import VAE, build_vae
from vaelab.networks import ConvDecoder, ConvEncoder, Decoder, Encoder, MLPDecoder, MLPEncoder
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

ENCODER = partial(ConvEncoder, channels=[4, 8])
DECODER = partial(ConvDecoder, channels=[4, 8])


class TwoNumbersPerChannel(BernoulliLikelihood):
    """A likelihood whose decoder must emit two numbers for every value of an image; it reads the first."""

    params_per_channel = 2


def build(
    *,
    encoder: partial[Encoder] = ENCODER,
    decoder: partial[Decoder] = DECODER,
    likelihood: Likelihood | None = None,
    **more: object,
) -> VAE:
    torch.manual_seed(0)
    sizes = {"x_shape": (3, 9, 14), "latent_dim": 5, **more}
    return build_vae(
        encoder=encoder,
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=decoder,
        likelihood=likelihood or BernoulliLikelihood(),
        **sizes,
    )


def test_latent_vectors_have_latent_dim_entries() -> None:
    model = build()
    assert model.latent_shape == model.prior.latent_shape == model.decoder.in_shape == (5,)


def test_latent_maps_are_as_large_as_the_last_feature_map() -> None:
    model = build(latent_map=True)
    assert model.encoder.out_shape == (8, 3, 4)
    assert model.latent_shape == model.prior.latent_shape == model.decoder.in_shape == (5, 3, 4)
    terms = model(torch.rand(2, 3, 9, 14), num_samples=3)
    assert terms.latents[0].z.shape == (3, 2, 5, 3, 4)
    assert terms.elbo.shape == (3, 2)
    torch.testing.assert_close(terms.latents[0].kl_per_dim.sum((1, 2, 3)), terms.kl[0])


def test_the_likelihood_decides_how_much_the_decoder_emits() -> None:
    assert build(likelihood=GaussianLikelihood()).decoder.out_shape == (3, 9, 14)
    assert build(likelihood=TwoNumbersPerChannel()).decoder.out_shape == (6, 9, 14)


def test_normalisation_reaches_the_model() -> None:
    model = build(mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0])
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.std.flatten().tolist() == pytest.approx([1, 2, 3])


@pytest.mark.parametrize("encoder", [partial(MLPEncoder, hidden=[4]), partial(ConvEncoder, channels=[4], dense=[8])])
def test_a_latent_map_of_feature_vectors_is_refused(encoder: partial[Encoder]) -> None:
    with pytest.raises(ValueError, match="latent_map=true needs an encoder that ends in a feature map"):
        build(encoder=encoder, latent_map=True)


def test_a_latent_map_that_the_decoder_does_not_start_from_is_refused() -> None:
    with pytest.raises(ValueError, match="starts from a map of 5x7, but the latent map is 3x4"):
        build(decoder=partial(ConvDecoder, channels=[4]), latent_map=True)


@pytest.mark.parametrize("latent_dim", [0, -1, 2.0, True])
def test_an_impossible_latent_dim_is_refused(latent_dim: object) -> None:
    with pytest.raises(ValueError, match=f"latent_dim must be a whole number of at least 1, but is {latent_dim}"):
        build(latent_dim=latent_dim)


def test_a_shape_that_is_no_image_s_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x_shape must be \(channels, height, width\), but is \(9, 14\)"):
        build(x_shape=(9, 14))


def test_latents_feed_a_decoder_of_another_kind() -> None:
    model = build(decoder=partial(MLPDecoder, hidden=[6]), latent_map=True)
    assert model.sample(2).shape == (2, 3, 9, 14)
