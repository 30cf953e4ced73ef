"""Coupling flow posterior: affine (Real NVP, Dinh et al. 2017) or spline (Durkan et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vaelab.distributions import Flow
from vaelab.distributions.flow import coupling_layers
from vaelab.samplers.flow import FlowSampler, diagonal


class Affine:
    """f(x) = mean + std * x, for mean and std (B, n)."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean, std

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x), (..., B, n), and sum log std, (B,)."""
        return self.mean + self.std * x, self.std.log().sum(-1)

    @property
    def inv(self) -> Affine:
        """The inverse."""
        return Affine(-self.mean / self.std, 1 / self.std)


class CouplingFlowSampler(FlowSampler):
    """z = mu(x) + sigma(x) * f_T o ... o f_1(eps; h(x)) with eps ~ N(0, I) and coupling layers f_t.

    Each layer changes every other entry, in turns, by a monotone map whose parameters are a network of the remaining
    entries and of h: z -> exp(s) z + t (`affine`; Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real
    NVP", equations 4 and 5) or a rational-quadratic spline (`spline`; Durkan, Bekasov, Murray & Papamakarios 2019,
    "Neural spline flows", equation 4). The splines come before mu and sigma, so that the noise fills their interval
    [-5, 5]. Draws and densities of any point take one pass.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w), the latter transformed as one vector.
        transform: affine or spline.
        steps: T.
        hidden: widths of the hidden layers of a coupling network.
        bins: pieces of a spline.
        context: length of h, a linear map of the features.

    Raises:
        ValueError: for an unknown `transform`, a number below 1, or a latent map that the features cannot give.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        latent_shape: Sequence[int],
        transform: str = "spline",
        steps: int = 4,
        hidden: Sequence[int] = (128, 128),
        bins: int = 8,
        context: int = 64,
    ) -> None:
        super().__init__(in_shape=in_shape, latent_shape=latent_shape, context=context)
        self.steps = coupling_layers(self.size, context=context, kind=transform, steps=steps, hidden=hidden, bins=bins)

    def forward(self, features: Tensor) -> Flow:
        """Maps features (B, *in_shape) to a flow of batch shape (B,) and event shape `latent_shape`."""
        mean, std = self.noise(features)
        context = self.context_of(features)
        layers = [step(context) for step in self.steps]
        base = diagonal(torch.zeros_like(mean), torch.ones_like(std))
        return Flow(base, [*layers, Affine(mean, std)], self.latent_shape)
