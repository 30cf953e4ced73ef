"""The flat variational autoencoder: p(x, z) = p(z) p(x|z), q(z|x)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.checks import positive_int
from vaelab.likelihoods import Likelihood
from vaelab.models.autoregressive import AutoregressiveImage
from vaelab.models.base import NO_WEIGHTS, Model
from vaelab.models.terms import Latent, Terms
from vaelab.networks import Condition, Corruption, Decoder, Encoder, NoCorruption
from vaelab.numerics import rows_at_once, systematic_resample
from vaelab.priors import Prior
from vaelab.samplers import Delta, Quantized, Sampler

SMALLEST_PART = 250  # draws that a compiled decoder takes at once
CONTRACT = "enable_floating_point_contract_flag"


class VAE(Model):
    """A variational autoencoder with one latent group (Kingma & Welling 2014).

    ELBO(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x), in nats per example.

    With a `condition` it is the conditional VAE of p(x|y) (Sohn, Lee & Yan 2015; Kingma et al. 2014): q(z|x,y),
    p(x|z,y) and a prior p(z) that does not depend on y. With a `corruption` the encoder sees corrupted data while
    training (Vincent et al. 2008; Im et al. 2017), and the likelihood is still asked about the clean.

    Args:
        encoder: data (B, C, H, W) -> features.
        sampler: features -> q(z|x).
        prior: p(z).
        decoder: latents -> parameters of the likelihood.
        likelihood: parameters -> p(x|z).
        condition: turns a context into the vector that encoder and decoder are given; None for none.
        corruption: of what the encoder sees while training.
        mean: what is subtracted before the encoder, one number per channel.
        std: what the difference is divided by, one number per channel.

    Raises:
        ValueError: if the parts do not fit each other.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        sampler: Sampler,
        prior: Prior,
        decoder: Decoder,
        likelihood: Likelihood,
        condition: Condition | None = None,
        corruption: Corruption | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__(
            x_shape=encoder.in_shape,
            latent_shape=sampler.latent_shape,
            likelihood=likelihood,
            condition=condition,
            mean=mean,
            std=std,
        )
        self.encoder = encoder
        self.sampler = sampler
        self.prior = prior
        self.decoder = decoder
        self.corruption = corruption or NoCorruption()
        self._check_parts()
        prior.attach(no_posterior if self.condition.dim else self._posterior, self.x_shape, self.sampler)

    def _check_parts(self) -> None:
        channels, height, width = self.x_shape
        shapes = {
            "the prior's latents": (self.prior.latent_shape, self.latent_shape),
            "the decoder's latents": (self.decoder.in_shape, self.latent_shape),
            "the decoder's output": (
                self.decoder.out_shape,
                (channels * self.likelihood.params_per_channel, height, width),
            ),
        }
        for what, (found, expected) in shapes.items():
            if tuple(found) != tuple(expected):
                raise ValueError(f"{what} are of shape {tuple(found)}, but the other parts need {tuple(expected)}")
        self.prior.check_space(self.sampler.space, self.sampler.remedy)

    @property
    def is_plane(self) -> bool:
        """Whether z is a point of the Euclidean plane, which can be drawn."""
        return super().is_plane and self.sampler.space == "Euclidean space"

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Returns the submodules by part; the sampler counts as encoder, the likelihood as decoder."""
        return {
            "encoder": (self.encoder, self.sampler),
            "decoder": (self.decoder, self.likelihood),
            "prior": (self.prior,),
            "condition": (self.condition,),
        }

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        """Returns the terms of the ELBO of x (B, C, H, W) for `num_samples` = K draws of z, all decoded at once.

        Raises:
            ValueError: for a `num_samples` below 1, or a conditional model without its context.
        """
        positive_int("num_samples", num_samples)
        c = self.condition(context)
        latent = self._draw(self.corruption(x), c, num_samples)
        return self._terms(latent, c, x, context)

    @torch.no_grad()
    def log_weights(
        self, x: Tensor, context: Tensor | None = None, *, num_samples: int, rows: int | None = None
    ) -> Tensor:
        """Returns log p(x, z) - log q(z|x) in nats, (num_samples, B): see `Model`; x is encoded once for all draws."""
        positive_int("num_samples", num_samples)
        c = self.condition(context)
        latent = self._draw(x, c, num_samples)
        log_px = self._scored(latent, c, x, rows)
        if isinstance(latent.q, Quantized):
            return log_px + latent.log_ratio
        # Not by the properties of Latent: up to Python 3.11 they hold a lock, which torch.compile does not take.
        return log_px + latent.p.log_prob(latent.z) - latent.q.log_prob(latent.z)

    def resampled_terms(self, x: Tensor, context: Tensor | None = None, *, num_samples: int, keep: int) -> Terms:
        """Returns the terms of `keep` draws for every image, resampled by their weights among `num_samples`.

        Of K draws from q(z|x), decoded without a gradient, J are resampled in proportion to w = p(x, z) / q(z|x) and
        decoded again: the mean of their d log w is an unbiased estimate of the gradient of log (1/K) sum_k w_k, for
        little more than a third of its cost (Burda, Grosse & Salakhutdinov 2016, section 3).

        Args:
            x: images (B, C, H, W) in the data's own range.
            context: what a conditional model is given, (B, ...).
            num_samples: K, the draws of every image.
            keep: J, those among them that carry the gradient.

        Returns:
            The terms of J draws; their `pool` holds those of all K, without gradient.

        Raises:
            ValueError: for a deterministic code, or a number below 1.
        """
        positive_int("num_samples", num_samples), positive_int("keep", keep)
        c = self.condition(context)
        latent = self._draw(self.corruption(x), c, num_samples)
        with torch.no_grad():
            pool = Terms(log_px=self._scored(latent, c, x), latents=(latent,))
            index = systematic_resample(pool.log_weights, keep)  # (J, B)
        z = latent.z[index, torch.arange(len(x), device=x.device)]
        return replace(self._terms(Latent(z=z, q=latent.q, p=latent.p), c, x, context), pool=pool)

    def compile_scoring(self) -> None:
        """Compiles `log_weights` as a whole, with the same random numbers as without."""
        from torch._inductor import config as inductor  # a second to import

        options: dict[str, str | int | bool | Callable[..., object]] = {"fallback_random": True}
        if hasattr(inductor.cpp, "max_horizontal_fusion_size"):
            # Else the logits of all parts would be kept for one loop at the end, far from a CPU's cache.
            options["cpp.max_horizontal_fusion_size"] = 1
        if getattr(inductor.cpp, CONTRACT, None) == "off":  # products and sums in one instruction, where it can be told
            options[f"cpp.{CONTRACT}"] = "fast"
        self.log_weights = torch.compile(self.log_weights, options=options)  # type: ignore[method-assign]

    def _draw(self, x: Tensor, c: Tensor | None, num_samples: int) -> Latent:
        q = self._posterior(x, c)
        return Latent(z=q.rsample((num_samples,)), q=q, p=self.prior())

    def _scored(self, latent: Latent, c: Tensor | None, x: Tensor, rows: int | None = None) -> Tensor:
        """Returns log p(x|z) in nats, (K, B), of all draws, decoding about `rows` of them at once."""
        if isinstance(latent.q, Delta):
            raise ValueError(NO_WEIGHTS)
        rows = rows or rows_at_once(latent.z.device)
        if torch.compiler.is_compiling():  # every part is compiled by itself
            rows = max(rows, SMALLEST_PART)
        parts = latent.z.split(max(1, rows // len(x)))
        return torch.cat([self.likelihood.log_prob(self._decoded(part, c, x), x) for part in parts])

    def _terms(self, latent: Latent, c: Tensor | None, x: Tensor, context: Tensor | None) -> Terms:
        params = self._decoded(latent.z, c, x)
        return Terms(
            log_px=self.likelihood.log_prob(params, x),
            latents=(latent,),
            penalties=getattr(latent.q, "penalties", {}),
            metrics=getattr(latent.q, "metrics", {}),
            x=x,
            context=context,
            params=params,
            model=self,
        )

    def _decoded(self, z: Tensor, c: Tensor | None, x: Tensor) -> Tensor:
        """Returns the parameters of p(x|z), (K, B, P * C, H, W), of draws z (K, B, *latent_shape)."""
        rows = z.flatten(0, 1).to(self.dtype)
        c = None if c is None else c.expand(len(z), *c.shape).flatten(0, 1)
        return self._params(rows, c, x).unflatten(0, z.shape[:2])

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns the posterior q(z|x) of x (B, C, H, W): batch shape (B,), event shape `latent_shape`."""
        return self._posterior(self._as_data(x), self.condition(context))

    def p_x(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns p(x|z) of batch shape (B,) and event shape (C, H, W), for z (B, *latent_shape).

        Raises:
            ValueError: for latents of another shape.
        """
        z, c = self._as_latents(z), self.condition(context)
        if self.decoder.autoregressive:
            return AutoregressiveImage(self.decoder, self.likelihood, z, c)
        return self.likelihood(self._params(z, c))

    def draw_latents(self, num_samples: int, context: Tensor | None = None) -> Tensor:
        """Draws z from the prior, (num_samples, *latent_shape)."""
        return self.prior().sample((num_samples,))

    def _posterior(self, x: Tensor, c: Tensor | None = None) -> Distribution:
        x = self._seen_by_encoder(x)
        return self.sampler(self.encoder(x) if c is None else self.encoder(x, c))

    def _params(self, z: Tensor, c: Tensor | None, x: Tensor | None = None) -> Tensor:
        if self.decoder.autoregressive and x is not None:
            return self.decoder(z, c, x=x.repeat(len(z) // len(x), 1, 1, 1))  # for every draw of z
        return self.decoder(z) if c is None else self.decoder(z, c)


def no_posterior(x: Tensor) -> Distribution:
    """Refuses: the posteriors of a conditional model are given more than x."""
    raise ValueError(
        "a prior made of posteriors q(z|u) does not fit a conditional model, whose posteriors are q(z|u,y); choose "
        "model/prior=gaussian_mixture or model/condition=none"
    )
