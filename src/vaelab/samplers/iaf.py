"""Inverse autoregressive flow posterior (Kingma et al. 2016, "Improved variational inference with IAF")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform

from vaelab.checks import positive_int, positive_ints
from vaelab.distributions import Flow
from vaelab.distributions.flow import lifted, load_zuko
from vaelab.samplers.flow import FlowSampler, diagonal

OPEN_GATE = 2.0  # added to s, so that a step starts near the identity, as the paper advises


def gate(m: Tensor, s: Tensor) -> AffineTransform:
    """Returns z -> sigma z + (1 - sigma) m with sigma = sigmoid(s + 2), entry by entry."""
    sigma = (s + OPEN_GATE).sigmoid()
    return AffineTransform((1 - sigma) * m, sigma)


class IAFSampler(FlowSampler):
    """z_t = sigma_t * z_(t-1) + (1 - sigma_t) * m_t, t = 1 ... T, from z_0 ~ N(mu(x), sigma(x)^2).

    (m_t, s_t) = MADE_t(z_(t-1), h(x)) and sigma_t = sigmoid(s_t), where the i-th outputs see only entries before i,
    so that log q(z|x) = log N(z_0; mu, sigma^2) - sum_t sum_i log sigma_ti (equations 10 to 14). The order is reversed
    after every step. Draws and their density take one pass; the density of other points takes D passes for every step.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w), the latter transformed as one vector.
        steps: T.
        hidden: widths of the hidden layers of a MADE.
        context: length of h, a linear map of the features.

    Raises:
        ValueError: for a number below 1, or a latent map that the features cannot give.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        latent_shape: Sequence[int],
        steps: int = 4,
        hidden: Sequence[int] = (128, 128),
        context: int = 64,
    ) -> None:
        super().__init__(in_shape=in_shape, latent_shape=latent_shape, context=context)
        order = torch.arange(self.size)
        made = load_zuko().flows.autoregressive.MaskedAutoregressiveTransform
        layers = [
            made(
                self.size,
                context,
                order=order.flip(0) if t % 2 else order,
                univariate=gate,
                shapes=[(), ()],
                hidden_features=positive_ints("hidden", hidden),
                activation=nn.ELU,
            )
            for t in range(positive_int("steps", steps))
        ]
        self.steps = nn.ModuleList(lifted(step) for step in layers)

    def forward(self, features: Tensor) -> Flow:
        """Maps features (B, *in_shape) to a flow of batch shape (B,) and event shape `latent_shape`."""
        context = self.context_of(features)
        return Flow(diagonal(*self.noise(features)), [step(context) for step in self.steps], self.latent_shape)
