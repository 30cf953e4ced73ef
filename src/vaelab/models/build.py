"""Fits the parts of a model together: the data's shape decides every other size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from vaelab.checks import image_shape, one_of, positive_int
from vaelab.likelihoods import Likelihood
from vaelab.models.vae import VAE
from vaelab.networks import Condition, Corruption, Decoder, Encoder
from vaelab.networks.condition import FiLM
from vaelab.priors import Prior
from vaelab.samplers import Sampler

DENSE = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def build_vae(
    *,
    x_shape: Sequence[int],
    latent_dim: int,
    latent_map: bool = False,
    encoder: Callable[..., Encoder],
    sampler: Callable[..., Sampler],
    prior: Callable[..., Prior],
    decoder: Callable[..., Decoder],
    likelihood: Likelihood,
    condition: Condition | None = None,
    corruption: Corruption | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    initialization: str = "torch",
    spectral_norm: bool = False,
) -> VAE:
    """Builds a flat VAE from parts that still lack their sizes.

    Args:
        x_shape: data shape (C, H, W).
        latent_dim: number of latent dimensions D; of a latent map, its channels.
        latent_map: whether the latents are a map (D, h, w) as large as the encoder's last feature map.
        encoder: called with `in_shape`.
        sampler: called with `in_shape` (the features') and `latent_shape`.
        prior: called with `latent_shape`.
        decoder: called with `in_shape` (the latents') and `out_shape` (the likelihood's parameters).
        likelihood: p(x|z).
        condition: what a context (labels, attributes) becomes for encoder and decoder; None for none.
        corruption: of what the encoder sees while training; None for none.
        mean: what is subtracted from the data before the encoder, one number per channel.
        std: what the difference is divided by, one number per channel.
        initialization: of encoder, sampler and decoder: `torch` (as the layers come) or `glorot` (Glorot & Bengio 2010,
            equation 16: weights uniform with variance 2 / (fan_in + fan_out), biases 0), as Keras and many papers have.
        spectral_norm: whether every layer of the decoder is divided by its largest singular value (Miyato et al. 2018),
            which bounds the decoder's slope (RAE-SN: Ghosh et al. 2020, section 3.2); FiLM's are left as they are.

    Raises:
        ValueError: if a size is impossible or the parts do not fit each other.
    """
    channels, height, width = image_shape("x_shape", x_shape)
    positive_int("latent_dim", latent_dim)
    options = condition.network_options() if condition is not None else {}
    encoder_network = encoder(in_shape=(channels, height, width), **options)
    features = encoder_network.out_shape
    if latent_map and len(features) != 3:
        raise ValueError(
            "latent_map=true needs an encoder that ends in a feature map: choose network=conv or network=resnet, "
            "without dense layers (model.encoder.dense=[])"
        )
    latent_shape = (latent_dim, *features[1:]) if latent_map else (latent_dim,)
    model = VAE(
        encoder=encoder_network,
        sampler=sampler(in_shape=features, latent_shape=latent_shape),
        prior=prior(latent_shape=latent_shape),
        decoder=decoder(
            in_shape=latent_shape, out_shape=(channels * likelihood.params_per_channel, height, width), **options
        ),
        likelihood=likelihood,
        condition=condition,
        corruption=corruption,
        mean=mean,
        std=std,
    )
    if one_of("initialization", initialization, ("torch", "glorot")) == "glorot":
        for part in (model.encoder, model.sampler, model.decoder):
            glorot(part)
    if spectral_norm:
        for layer in dense(model.decoder):
            nn.utils.parametrizations.spectral_norm(layer)
    return model


def dense(part: nn.Module) -> list[nn.Linear | nn.Conv2d | nn.ConvTranspose2d]:
    """Returns the dense layers and convolutions of `part` but for those of FiLM, which start at 0."""
    films = {id(film.linear) for film in part.modules() if isinstance(film, FiLM)}
    return [layer for layer in part.modules() if isinstance(layer, DENSE) and id(layer) not in films]


def glorot(part: nn.Module) -> None:
    """Initialises the dense layers and convolutions of `part` as Glorot & Bengio do; FiLM stays the identity."""
    for layer in dense(part):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
