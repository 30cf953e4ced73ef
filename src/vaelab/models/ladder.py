"""Vectors in levels: p(x, z_1..L) = p(z_L) prod_l p(z_l|z_l+1) p(x|z_1), and q of the same groups in either order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any, cast

from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaelab.checks import image_shape, one_of, positive_int, positive_ints
from vaelab.distributions.gaussian import product_of_gaussians, unflatten_batch
from vaelab.likelihoods import Likelihood
from vaelab.models.base import Model
from vaelab.models.build import glorot
from vaelab.models.terms import Latent, Terms
from vaelab.models.vae import no_posterior
from vaelab.networks import Condition, Corruption, Decoder, Encoder, NoCorruption
from vaelab.networks.base import dense_layers
from vaelab.priors import Prior
from vaelab.samplers import GaussianSampler

Draw = Callable[[Distribution], Tensor]


class SampledLatent(Latent):
    """A group whose prior is given what was drawn after it, which says something of z: its KL has no closed form.

    E[log q(z_1|x) - log p(z_1|z_2)] with z_2 ~ q(z_2|z_1) is no KL for a fixed z_2, and is estimated by the draws.
    """

    @cached_property
    def kl(self) -> Tensor:
        """log q - log p of the draws in nats, (K, B)."""
        return -self.log_ratio

    @cached_property
    def kl_per_dim(self) -> None:
        """None."""
        return


class LadderVAE(Model):
    """A variational autoencoder with L levels of Gaussian latent vectors (Sonderby et al. 2016).

    p(z_L) is the prior, p(z_l|z_l+1) = N(mu_p, sigma_p^2) comes from dense layers, and p(x|z_1) from the decoder. The
    data reach the levels by `inference`:

    - ladder: deterministic features d_1 = encoder(x), d_l+1 = dense layers(d_l), and on the way down from the top

          q(z_l|z_l+1, x) = N(z_l; mu_hat(d_l), sigma_hat^2(d_l)) * p(z_l|z_l+1) / normaliser,

      so that precisions add up and means are averaged by precision (section 2.2); q(z_L|x) = N(mu_hat, sigma_hat^2);
    - bottom_up: q(z_1|x) and q(z_l+1|z_l) from dense layers, as in a hierarchical VAE without sharing (Burda, Grosse &
      Salakhutdinov 2016, the models of two stochastic layers); of all groups but the top the KL is then estimated by
      log q - log p of the draws, as p(z_l|z_l+1) is given a z_l+1 that was drawn after z_l.

    One level is the flat VAE with a Gaussian sampler. `Terms.latents` go from the top group to z_1. What `encode` and
    `decode` call z is the top group; the groups below are at the means of what they would be drawn from. A `condition`
    reaches encoder and decoder, as in the flat VAE.

    Deviations from the paper: variances are exp(s) instead of softplus(s), and batch normalisation is optional.

    Args:
        encoder: data (B, C, H, W) -> features d_1.
        latent_dims: dimensions of z_1 ... z_L, from the data to the top.
        hidden: widths of the dense layers between a level and the next, up and down alike: one less than levels.
        prior: p(z_L).
        decoder: z_1 -> parameters of the likelihood.
        likelihood: parameters -> p(x|z_1).
        inference: ladder or bottom_up.
        depth: dense layers between a level and the next.
        activation: name of their non-linearity.
        norm: none, batch or layer: of the dense layers.
        condition: turns a context into the vector that encoder and decoder are given; None for none.
        corruption: of what the encoder sees while training.
        mean: what is subtracted before the encoder, one number per channel.
        std: what the difference is divided by, one number per channel.

    Raises:
        ValueError: for a value outside its range, or if the parts do not fit each other.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        latent_dims: Sequence[int],
        hidden: Sequence[int],
        prior: Prior,
        decoder: Decoder,
        likelihood: Likelihood,
        inference: str = "ladder",
        depth: int = 2,
        activation: str = "leaky_relu",
        norm: str = "none",
        condition: Condition | None = None,
        corruption: Corruption | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        dims, widths = check_levels(latent_dims, hidden)
        super().__init__(
            x_shape=encoder.in_shape,
            latent_shape=(dims[-1],),
            likelihood=likelihood,
            condition=condition,
            mean=mean,
            std=std,
        )
        self.inference = one_of("inference", inference, ("ladder", "bottom_up"))
        positive_int("depth", depth)
        self.encoder = encoder
        self.corruption = corruption or NoCorruption()

        def layers(width_in: int, width: int) -> list[nn.Module]:
            return dense_layers(width_in, [width] * depth, activation=activation, norm=norm, dropout=0.0)

        def gaussian(features: Sequence[int], dim: int) -> GaussianSampler:
            return GaussianSampler(in_shape=features, latent_shape=(dim,))

        features = [encoder.out_shape, *((width,) for width in widths)]
        below = dims[:-1] if inference == "bottom_up" else [prod(shape) for shape in features[:-1]]
        # Between level l and l + 1: up[l] ends in the features from which heads[l + 1] makes a Gaussian.
        self.up = nn.ModuleList(nn.Sequential(nn.Flatten(), *layers(a, b)) for a, b in zip(below, widths, strict=True))
        self.heads = nn.ModuleList(gaussian(shape, dim) for shape, dim in zip(features, dims, strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(*layers(above, width), gaussian((width,), dim))
            for dim, width, above in zip(dims[:-1], widths, dims[1:], strict=True)
        )
        self.prior = prior
        self.decoder = decoder
        self._check_parts((dims[0],))
        prior.attach(no_posterior if self.condition.dim else self._top_posterior, self.x_shape)

    def _check_parts(self, bottom: tuple[int]) -> None:
        channels, height, width = self.x_shape
        shapes = {
            "the prior's latents": (self.prior.latent_shape, self.latent_shape),
            "the decoder's latents": (self.decoder.in_shape, bottom),
            "the decoder's output": (
                self.decoder.out_shape,
                (channels * self.likelihood.params_per_channel, height, width),
            ),
        }
        for what, (found, expected) in shapes.items():
            if tuple(found) != tuple(expected):
                raise ValueError(f"{what} are of shape {tuple(found)}, but the other parts need {tuple(expected)}")
        if self.decoder.autoregressive:
            raise ValueError(
                f"{type(self.decoder).__name__} sees the pixels before the one it predicts, which this model does not "
                "show it; choose model=vae or another model/decoder"
            )
        self.prior.check_space(GaussianSampler.space, GaussianSampler.remedy)

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Returns the submodules by part; the layers from level to level belong to the encoder or the decoder."""
        return {
            "encoder": (self.encoder, self.up, self.heads),
            "decoder": (self.down, self.decoder, self.likelihood),
            "prior": (self.prior,),
            "condition": (self.condition,),
        }

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        """Returns the terms of the ELBO of x (B, C, H, W) for `num_samples` = K draws of all groups.

        Raises:
            ValueError: for a `num_samples` below 1, or a conditional model without its context.
        """
        positive_int("num_samples", num_samples)
        c = self.condition(context)

        def draw(q: Distribution) -> Tensor:  # (K, B, D): the first group's q has batch shape (B,), all others (K, B)
            return q.rsample((num_samples,) if len(q.batch_shape) == 1 else ())

        latents = self._infer(self.corruption(x), c, draw)
        z = latents[-1].z
        c = None if c is None else c.expand(num_samples, *c.shape).flatten(0, 1)
        params = self._params(z.flatten(0, 1), c).unflatten(0, z.shape[:2])
        return Terms(
            log_px=self.likelihood.log_prob(params, x),
            latents=tuple(latents),
            x=x,
            context=context,
            params=params,
            model=self,
        )

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns the posterior of the top group z_L given x (B, C, H, W): batch shape (B,), event shape (D_L,).

        With bottom_up inference it is q(z_L|z_L-1) at the posterior means of the groups below.
        """
        return self._top_posterior(self._as_data(x), self.condition(context))

    def p_x(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns p(x|z_1) with z_1 ... z_L-1 at their prior means given the top group z (B, D_L).

        Raises:
            ValueError: for latents of another shape.
        """
        return self._p_x_below(z, context, lambda p: p.mean)

    def draw_latents(self, num_samples: int, context: Tensor | None = None) -> Tensor:
        """Draws the top group from the prior, (num_samples, D_L)."""
        return self.prior().sample((num_samples,))

    def _p_x_of_draw(self, z: Tensor, context: Tensor | None) -> Distribution:
        return self._p_x_below(z, context, lambda p: p.sample())

    def _p_x_below(self, z: Tensor, context: Tensor | None, draw: Draw) -> Distribution:
        z = self._as_latents(z)
        for layers in reversed(self.down):
            z = draw(self._given(z, layers))
        return self.likelihood(self._params(z, self.condition(context)))

    def _reconstruction(self, x: Tensor, context: Tensor | None) -> Tensor:
        c = self.condition(context)
        return self.likelihood(self._params(self._infer(x, c, lambda q: q.mean)[-1].z, c)).mean

    def _infer(self, x: Tensor, c: Tensor | None, draw: Draw) -> list[Latent]:
        """Returns the latent groups, the top one first, with every z as `draw` takes it from its posterior."""
        infer = self._ladder if self.inference == "ladder" else self._bottom_up
        return infer(self._features(x, c), draw)

    def _ladder(self, features: Tensor, draw: Draw) -> list[Latent]:
        hats = self._hats(features)
        latents = [Latent(z=draw(hats[-1]), q=hats[-1], p=self.prior())]
        for layers, hat in zip(reversed(self.down), reversed(hats[:-1]), strict=True):
            p = self._given(latents[-1].z, layers)
            q = product_of_gaussians(hat, p)
            latents.append(Latent(z=draw(q), q=q, p=p))
        return latents

    def _bottom_up(self, features: Tensor, draw: Draw) -> list[Latent]:
        drawn = self._chain(features, draw)
        *below, (q_top, z_top) = drawn
        latents = [Latent(z=z_top, q=q_top, p=self.prior())]
        for layers, (q, z) in zip(reversed(self.down), reversed(below), strict=True):
            latents.append(SampledLatent(z=z, q=q, p=self._given(latents[-1].z, layers)))
        return latents

    def _top_posterior(self, x: Tensor, c: Tensor | None = None) -> Independent:
        features = self._features(x, c)
        if self.inference == "ladder":
            return self._hats(features)[-1]
        return self._chain(features, lambda q: q.mean)[-1][0]

    def _hats(self, features: Tensor) -> list[Independent]:
        """Returns N(mu_hat, sigma_hat^2) of every level, the data's first."""
        hats = [self.heads[0](features)]
        for layers, head in zip(self.up, self.heads[1:], strict=True):
            features = layers(features)
            hats.append(head(features))
        return hats

    def _chain(self, features: Tensor, draw: Draw) -> list[tuple[Independent, Tensor]]:
        """Returns q and z of every level, the data's first, where each q is given the z before."""
        q = self.heads[0](features)
        drawn = [(q, draw(q))]
        for layers, head in zip(self.up, self.heads[1:], strict=True):
            q = self._given(drawn[-1][1], layers, head)
            drawn.append((q, draw(q)))
        return drawn

    def _given(self, z: Tensor, *layers: nn.Module) -> Independent:
        """Returns the Gaussian that `layers` make of another group's z (..., D), of batch shape (...)."""
        h: Any = z.flatten(0, -2).to(self.dtype)
        for layer in layers:
            h = layer(h)
        return cast(Independent, unflatten_batch(h, z.shape[:-1]))

    def _features(self, x: Tensor, c: Tensor | None) -> Tensor:
        x = self._seen_by_encoder(x)
        return self.encoder(x) if c is None else self.encoder(x, c)

    def _params(self, z: Tensor, c: Tensor | None) -> Tensor:
        z = z.to(self.dtype)  # Gaussians are in float32 at least
        return self.decoder(z) if c is None else self.decoder(z, c)


def build_ladder_vae(
    *,
    x_shape: Sequence[int],
    latent_dims: Sequence[int],
    hidden: Sequence[int],
    encoder: Callable[..., Encoder],
    prior: Callable[..., Prior],
    decoder: Callable[..., Decoder],
    likelihood: Likelihood,
    inference: str = "ladder",
    depth: int = 2,
    activation: str = "leaky_relu",
    norm: str = "none",
    condition: Condition | None = None,
    corruption: Corruption | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    initialization: str = "torch",
) -> LadderVAE:
    """Builds a ladder VAE from parts that still lack their sizes.

    Args:
        x_shape: data shape (C, H, W).
        latent_dims: dimensions of z_1 ... z_L, from the data to the top.
        hidden: widths of the dense layers between a level and the next: one less than levels.
        encoder: called with `in_shape`.
        prior: called with `latent_shape`, the top group's.
        decoder: called with `in_shape` (that of z_1) and `out_shape` (the likelihood's parameters).
        likelihood: p(x|z_1).
        inference: ladder or bottom_up.
        depth: dense layers between a level and the next.
        activation: name of their non-linearity.
        norm: none, batch or layer: of the dense layers.
        condition: what a context (labels, attributes) becomes for encoder and decoder; None for none.
        corruption: of what the encoder sees while training; None for none.
        mean: what is subtracted from the data before the encoder, one number per channel.
        std: what the difference is divided by, one number per channel.
        initialization: of all layers but the prior's: `torch` (as they come) or `glorot`, as in `build_vae`.

    Raises:
        ValueError: if a size is impossible or the parts do not fit each other.
    """
    channels, height, width = image_shape("x_shape", x_shape)
    dims, _ = check_levels(latent_dims, hidden)
    options = condition.network_options() if condition is not None else {}
    model = LadderVAE(
        encoder=encoder(in_shape=(channels, height, width), **options),
        latent_dims=latent_dims,
        hidden=hidden,
        prior=prior(latent_shape=(dims[-1],)),
        decoder=decoder(
            in_shape=(dims[0],), out_shape=(channels * likelihood.params_per_channel, height, width), **options
        ),
        likelihood=likelihood,
        inference=inference,
        depth=depth,
        activation=activation,
        norm=norm,
        condition=condition,
        corruption=corruption,
        mean=mean,
        std=std,
    )
    if one_of("initialization", initialization, ("torch", "glorot")) == "glorot":
        for part in (model.encoder, model.up, model.heads, model.down, model.decoder):
            glorot(part)
    return model


def check_levels(latent_dims: Sequence[int], hidden: Sequence[int]) -> tuple[list[int], list[int]]:
    """Returns both as lists, or raises a ValueError if they are no levels and what lies between them."""
    dims, widths = positive_ints("latent_dims", latent_dims), positive_ints("hidden", hidden)
    if not dims:
        raise ValueError("latent_dims needs at least one level, for example latent_dims=[64,32]")
    if len(widths) != len(dims) - 1:
        raise ValueError(
            f"hidden needs a width between every level and the next, {len(dims) - 1} for latent_dims={dims}, but is "
            f"{widths}; for example hidden={[4 * dim for dim in dims[1:]]}"
        )
    return dims, widths
