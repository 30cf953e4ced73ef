"""What every model promises, whatever its factorisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.checks import positive_int
from vaelab.likelihoods import Likelihood
from vaelab.models.terms import Terms
from vaelab.networks import Condition, Unconditional
from vaelab.numerics import rows_at_once, seeded

NO_WEIGHTS = "a deterministic code has no density q(z|x), and so no importance weights"


class Model(nn.Module):
    """A joint density p(x, z) with an approximate posterior q(z|x), both perhaps given a context.

    Every method takes and returns data in its own range, as the likelihood scores it; the encoder alone sees
    (x - mean) / std. A context is what is given besides x, one row for every example: labels (B,) or attribute vectors
    (B, A). Models without a use for it leave it alone.

    Args:
        x_shape: data shape (C, H, W).
        latent_shape: shape of what `encode` and `decode` call z.
        likelihood: p(x|z).
        condition: turns a context into a vector; None for models without one.
        mean: what is subtracted before the encoder, one number per channel.
        std: what the difference is divided by, one number per channel.

    Raises:
        ValueError: for a `mean` or `std` that does not fit the channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        x_shape: Sequence[int],
        latent_shape: Sequence[int],
        likelihood: Likelihood,
        condition: Condition | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)
        self.latent_shape = tuple(latent_shape)
        self.likelihood = likelihood
        self.condition = condition or Unconditional()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, self.x_shape[0]):
                raise ValueError(
                    f"{name} needs one number, or one for each of {self.x_shape[0]} channels, but is {list(values)}"
                )
        if not all(s > 0 for s in std):
            raise ValueError(f"std must be above 0, but is {list(std)}")
        self.normalizes = any(m != 0 for m in mean) or any(s != 1 for s in std)
        dtype = torch.get_default_dtype()
        self.register_buffer("mean", torch.tensor(list(mean), dtype=dtype).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=dtype).view(-1, 1, 1))

    # ---- what a factorisation defines

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        """Returns the terms of the ELBO of x (B, C, H, W) for `num_samples` = K draws of z, all decoded at once."""
        raise NotImplementedError

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns the posterior of z given x (B, C, H, W): batch shape (B,), event shape `latent_shape`."""
        raise NotImplementedError

    def p_x(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns p(x|z) of batch shape (B,) and event shape (C, H, W), for z (B, *latent_shape)."""
        raise NotImplementedError

    def draw_latents(self, num_samples: int, context: Tensor | None = None) -> Tensor:
        """Draws z from the model's own prior, (num_samples, *latent_shape)."""
        raise NotImplementedError

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Returns which submodules make up the encoder, the decoder and the prior, for counting parameters."""
        raise NotImplementedError

    @property
    def is_plane(self) -> bool:
        """Whether z is a point of the Euclidean plane, which can be drawn."""
        return self.latent_shape == (2,)

    def compile_scoring(self) -> None:
        """Compiles what scores many draws without a gradient, if the factorisation has such a part."""

    # ---- what all of them have

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the parameters."""
        return self.mean.dtype

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns the mean image E[x|z], (B, C, H, W), in the range of the data, for z (B, *latent_shape).

        Raises:
            ValueError: for latents of another shape.
        """
        return self.p_x(z, context).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Tensor | None = None, *, batch_size: int = 1000) -> Tensor:
        """Returns the mean image of the posterior mean, E[x | z = E_q[z|x]], (B, C, H, W): no noise is drawn."""
        positive_int("batch_size", batch_size)
        x = self._as_data(x)
        parts = zip(x.split(batch_size), _split(context, batch_size, len(x)), strict=True)
        return torch.cat([self._reconstruction(part, c) for part, c in parts])

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        context: Tensor | None = None,
        *,
        mean: bool = True,
        seed: int | None = None,
        batch_size: int = 1000,
    ) -> Tensor:
        """Draws z from the model's own prior and returns images (num_samples, C, H, W).

        Args:
            num_samples: number of images.
            context: what the images are given, (num_samples, ...); None draws labels with equal probabilities.
            mean: return E[x|z] (what papers show); if false, draw x from p(x|z) as well.
            seed: makes the draws repeatable and leaves the global random state alone.
            batch_size: images decoded at once.

        Raises:
            ValueError: for a conditional model whose context cannot be drawn, or one of another size.
        """
        positive_int("num_samples", num_samples), positive_int("batch_size", batch_size)
        with seeded(seed, self.device):
            if context is None:
                context = self.condition.draw(num_samples, self.device)
            elif len(context) != num_samples:
                raise ValueError(f"{num_samples} samples need as many rows of context, but there are {len(context)}")
            z = self.draw_latents(num_samples, context)
            parts = zip(z.split(batch_size), _split(context, batch_size, num_samples), strict=True)
            densities = (self._p_x_of_draw(part, c) for part, c in parts)
            return torch.cat([p.mean if mean else p.sample() for p in densities])

    @torch.no_grad()
    def elbo(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1, batch_size: int = 1000) -> Tensor:
        """Returns the ELBO in nats, (B,), averaged over `num_samples` draws of z for every x (B, C, H, W)."""
        positive_int("num_samples", num_samples), positive_int("batch_size", batch_size)
        x = self._as_data(x)
        step = max(1, batch_size // num_samples)
        parts = zip(x.split(step), _split(context, step, len(x)), strict=True)
        return torch.cat([self(part, c, num_samples=num_samples).elbo.mean(0) for part, c in parts])

    def resampled_terms(self, x: Tensor, context: Tensor | None = None, *, num_samples: int, keep: int) -> Terms:
        """Returns the terms of `keep` draws for every image, resampled by their weights among `num_samples`.

        Raises:
            ValueError: for a model that cannot decode some of its draws again.
        """
        raise ValueError(f"objective.keep needs a flat model (model=vae), but this is a {type(self).__name__}")

    @torch.no_grad()
    def log_weights(
        self, x: Tensor, context: Tensor | None = None, *, num_samples: int, rows: int | None = None
    ) -> Tensor:
        """Returns log p(x, z) - log q(z|x) in nats, (num_samples, B), of draws z ~ q(z|x), without gradient.

        Args:
            x: images (B, C, H, W) in the data's own range, on the model's device.
            context: what a conditional model is given, (B, ...).
            num_samples: K, draws of z for every image.
            rows: draws, of all images together, that are decoded at once (but at least one of every image); None for
                as many as suit the device.

        Raises:
            ValueError: for a deterministic code, or a number below 1.
        """
        positive_int("num_samples", num_samples)
        step = max(1, (rows or rows_at_once(self.device)) // len(x))
        weights = []
        for done in range(0, num_samples, step):
            terms = self(x, context, num_samples=min(step, num_samples - done))
            if not terms.is_bound:
                raise ValueError(NO_WEIGHTS)
            weights.append(terms.log_weights)
        return torch.cat(weights)

    def _reconstruction(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Returns E[x|z] at the posterior mean; a hierarchy takes the mean of every group."""
        return self.decode(self.encode(x, context).mean, context)

    def _p_x_of_draw(self, z: Tensor, context: Tensor | None) -> Distribution:
        """Returns p(x|z) for z drawn from the prior; a hierarchy draws its lower groups, too."""
        return self.p_x(z, context)

    def _seen_by_encoder(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std if self.normalizes else x

    def _as_data(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.x_shape:
            raise ValueError(f"images must be (B, {csv(self.x_shape)}), but are ({csv(x.shape)})")
        if not x.is_floating_point():
            raise ValueError(f"images must be floating-point numbers in the data's own range, but are {x.dtype}")
        if "real" not in self.likelihood.supports and x.numel() and (x.min() < 0 or x.max() > 1):
            raise ValueError(
                f"images must lie in [0, 1] for {type(self.likelihood).__name__}, but reach from {x.min():.4g} to "
                f"{x.max():.4g}; divide 8-bit images by 255"
            )
        return x.to(self.device, self.dtype)

    def _as_latents(self, z: Tensor) -> Tensor:
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(f"latents must be (B, {csv(self.latent_shape)}), but are ({csv(z.shape)})")
        return z.to(self.device, self.dtype)


def csv(shape: Sequence[int]) -> str:
    """Returns the numbers of a shape, separated by commas."""
    return ", ".join(map(str, shape))


def _split(context: Tensor | None, size: int, total: int) -> Sequence[Tensor | None]:
    return context.split(size) if context is not None else [None] * max(1, -(-total // size))
