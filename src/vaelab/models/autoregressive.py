"""p(x|z) of an autoregressive decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaelab.likelihoods import Likelihood
from vaelab.networks import Decoder
from vaelab.numerics import seeded

MEAN_SEED = 0x5EED  # no seed that latents are likely drawn by, whose noise would be drawn again


class AutoregressiveImage(Distribution):
    """p(x|z) = prod_i p(x_i | x_<i, z) over the pixels i in raster order, of batch shape (B,).

    Args:
        decoder: emits the parameters of every pixel given those before it.
        likelihood: what the parameters mean, for every pixel alone.
        z: latents (B, *latent_shape).
        c: what a context became, (B, E), or None.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, decoder: Decoder, likelihood: Likelihood, z: Tensor, c: Tensor | None = None) -> None:
        self.decoder, self.likelihood, self.z, self.c = decoder, likelihood, z, c
        channels, *size = decoder.out_shape
        shape = torch.Size((channels // likelihood.params_per_channel, *size))
        super().__init__(z.shape[:1], shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x_i | x_<i, z] of every pixel, (B, C, H, W), along one draw of x from a fixed seed.

        The mean E[x|z] itself has no closed form. This is a draw without the noise of its last step: its expectation
        over draws is E[x|z]. An image's noise depends on its place in the batch.
        """
        with seeded(MEAN_SEED, self.z.device):
            x = self.sample()
        return self.likelihood(self.decoder(self.z, self.c, x=x)).mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(x|z) in nats, (..., B), for x (..., B, C, H, W), all pixels at once."""
        lead = value.shape[:-4]
        value = value.expand(*lead, len(self.z), *self.event_shape).flatten(0, -4)
        params = self.decoder(*self._repeated(lead.numel()), x=value)
        return self.likelihood.log_prob(params.unsqueeze(0), value).unflatten(-1, (*lead, -1)).squeeze(0)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws x (*sample_shape, B, C, H, W), pixel by pixel."""
        shape = torch.Size(sample_shape)
        x = self.decoder.generate(*self._repeated(shape.numel()), self._draw)
        return x.unflatten(0, (*shape, -1))

    def _draw(self, params: Tensor, row: int, column: int) -> Tensor:
        drawn = self.likelihood(params).sample()
        if drawn.shape[-2:] == (1, 1):
            return drawn
        return drawn[..., row : row + 1, column : column + 1]  # of a likelihood with a scale for every pixel

    def _repeated(self, count: int) -> tuple[Tensor, Tensor | None]:
        z, c = (t if t is None else t.expand(count, *t.shape).flatten(0, 1) for t in (self.z, self.c))
        assert z is not None
        return z, c
