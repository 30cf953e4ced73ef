"""The flat variational autoencoder: p(x, z) = p(z) p(x|z), q(z|x)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.checks import positive_int
from vaelab.likelihoods import Likelihood
from vaelab.models.terms import Latent, Terms
from vaelab.networks import Decoder, Encoder
from vaelab.numerics import seeded
from vaelab.priors import Prior
from vaelab.samplers import Sampler


class VAE(nn.Module):
    """A variational autoencoder with one latent group (Kingma & Welling 2014).

    ELBO(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x), in nats per example.

    Every method takes and returns data in its own range, as the likelihood scores it; the encoder alone sees
    (x - mean) / std.

    Args:
        encoder: data (B, C, H, W) -> features.
        sampler: features -> q(z|x).
        prior: p(z).
        decoder: latents -> parameters of the likelihood.
        likelihood: parameters -> p(x|z).
        mean: what is subtracted before the encoder, one number per channel.
        std: what the difference is divided by, one number per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        encoder: Encoder,
        sampler: Sampler,
        prior: Prior,
        decoder: Decoder,
        likelihood: Likelihood,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.sampler = sampler
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.x_shape = tuple(encoder.in_shape)
        self.latent_shape = tuple(sampler.latent_shape)
        self._check_parts(mean, std)
        prior.attach(self._posterior, self.x_shape)
        self.normalizes = any(m != 0 for m in mean) or any(s != 1 for s in std)
        dtype = torch.get_default_dtype()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=dtype).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=dtype).view(-1, 1, 1))

    def _check_parts(self, mean: Sequence[float], std: Sequence[float]) -> None:
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
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"{name} needs one number, or one for each of {channels} channels, but is {list(values)}"
                )
        if not all(s > 0 for s in std):
            raise ValueError(f"std must be above 0, but is {list(std)}")
        self.prior.check_space(self.sampler.space, self.sampler.remedy)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters."""
        return self.mean.dtype

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        """Returns the terms of the ELBO of x (B, C, H, W) for `num_samples` = K draws of z, all decoded at once.

        `context` is what a conditional model is given besides x; this one takes none.

        Raises:
            ValueError: for a `num_samples` below 1.
        """
        positive_int("num_samples", num_samples)
        q = self._posterior(x)
        z = q.rsample((num_samples,))  # (K, B, *latent_shape)
        params = self.decoder(z.flatten(0, 1).to(self.dtype)).unflatten(0, z.shape[:2])
        return Terms(log_px=self.likelihood.log_prob(params, x), latents=(Latent(z=z, q=q, p=self.prior()),))

    def encode(self, x: Tensor) -> Distribution:
        """Returns the posterior q(z|x) of x (B, C, H, W): batch shape (B,), event shape `latent_shape`."""
        return self._posterior(self._as_data(x))

    def decode(self, z: Tensor) -> Tensor:
        """Returns the mean image E[x|z], (B, C, H, W), in the range of the data, for z (B, *latent_shape).

        Raises:
            ValueError: for latents of another shape.
        """
        return self.p_x(z).mean

    def p_x(self, z: Tensor) -> Distribution:
        """Returns p(x|z) of batch shape (B,) and event shape (C, H, W), for z (B, *latent_shape).

        Raises:
            ValueError: for latents of another shape.
        """
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(f"latents must be (B, {_csv(self.latent_shape)}), but are ({_csv(z.shape)})")
        return self.likelihood(self.decoder(z.to(self.device, self.dtype)))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, batch_size: int = 1000) -> Tensor:
        """Returns the mean image of the posterior mean, E[x | z = E_q[z|x]], (B, C, H, W): no noise is drawn."""
        positive_int("batch_size", batch_size)
        x = self._as_data(x)
        return torch.cat([self.decode(self._posterior(part).mean) for part in x.split(batch_size)])

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        *,
        mean: bool = True,
        seed: int | None = None,
        batch_size: int = 1000,
    ) -> Tensor:
        """Draws z from the model's own prior and returns images (num_samples, C, H, W).

        Args:
            num_samples: number of images.
            mean: return E[x|z] (what papers show); if false, draw x from p(x|z) as well.
            seed: makes the draws repeatable and leaves the global random state alone.
            batch_size: images decoded at once.
        """
        positive_int("num_samples", num_samples), positive_int("batch_size", batch_size)
        with seeded(seed, self.device):
            z = self.prior().sample((num_samples,))
            parts = [self.p_x(part) for part in z.split(batch_size)]
            return torch.cat([p.mean if mean else p.sample() for p in parts])

    @torch.no_grad()
    def elbo(self, x: Tensor, *, num_samples: int = 1, batch_size: int = 1000) -> Tensor:
        """Returns the ELBO in nats, (B,), averaged over `num_samples` draws of z for every x (B, C, H, W)."""
        positive_int("num_samples", num_samples), positive_int("batch_size", batch_size)
        x = self._as_data(x)
        step = max(1, batch_size // num_samples)
        return torch.cat([self(part, num_samples=num_samples).elbo.mean(0) for part in x.split(step)])

    def _posterior(self, x: Tensor) -> Distribution:
        return self.sampler(self.encoder((x - self.mean) / self.std if self.normalizes else x))

    def _as_data(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.x_shape:
            raise ValueError(f"images must be (B, {_csv(self.x_shape)}), but are ({_csv(x.shape)})")
        if not x.is_floating_point():
            raise ValueError(f"images must be floating-point numbers in the data's own range, but are {x.dtype}")
        if "real" not in self.likelihood.supports and x.numel() and (x.min() < 0 or x.max() > 1):
            raise ValueError(
                f"images must lie in [0, 1] for {type(self.likelihood).__name__}, but reach from {x.min():.4g} to "
                f"{x.max():.4g}; divide 8-bit images by 255"
            )
        return x.to(self.device, self.dtype)


def _csv(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
