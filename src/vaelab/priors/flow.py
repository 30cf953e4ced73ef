"""Prior that is a coupling flow (Real NVP, Dinh et al. 2017; neural splines, Durkan et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vaelab.distributions import Flow
from vaelab.distributions.flow import Affine, coupling_layers
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class FlowPrior(Prior):
    """z = a(f_T o ... o f_1(u)) with u ~ N(0, I): log p(z) = log N(u; 0, I) - sum_t log |det df_t/du_(t-1)| - log |a'|.

    The coupling layers f_t are learned: exp(s) z + t (`affine`; Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation
    using Real NVP", equations 4 and 5) or rational-quadratic splines on [-5, 5] and the identity outside (`spline`;
    Durkan, Bekasov, Murray & Papamakarios 2019, "Neural spline flows", equation 4). Drawing and scoring take one pass.
    The fixed map a shifts and stretches every dimension: not at all, or as the codes of a trained model need it
    (`initialize`). The KL of a posterior is estimated by log q(z|x) - log p(z) of the draws.

    Args:
        latent_shape: (D,) or (D, h, w), the latter transformed as one vector.
        transform: affine or spline.
        steps: T.
        hidden: widths of the hidden layers of a coupling network.
        bins: pieces of a spline.

    Raises:
        ValueError: for an unknown `transform` or a number below 1.
    """

    loc: Tensor
    scale: Tensor
    shift: Tensor
    stretch: Tensor

    def __init__(
        self,
        *,
        latent_shape: Sequence[int],
        transform: str = "spline",
        steps: int = 4,
        hidden: Sequence[int] = (128, 128),
        bins: int = 8,
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        size = math.prod(latent_shape)
        self.register_buffer("loc", torch.zeros(size), persistent=False)
        self.register_buffer("scale", torch.ones(size), persistent=False)
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("stretch", torch.ones(size))
        self.steps = coupling_layers(size, context=0, kind=transform, steps=steps, hidden=hidden, bins=bins)

    def forward(self) -> Flow:
        """Returns the flow, of event shape `latent_shape`."""
        normal = Normal(at_least_float32(self.loc), at_least_float32(self.scale), validate_args=False)
        noise = Independent(normal, 1, validate_args=False)
        last = Affine(at_least_float32(self.shift), at_least_float32(self.stretch))
        return Flow(noise, [*(step() for step in self.steps), last], self.latent_shape)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Gives a the mean and the standard deviation of the codes."""
        if len(z) < 2:
            raise ValueError(f"the spread of codes needs at least 2 of them, not {len(z)}; use more training images")
        self.shift.copy_(z.flatten(1).mean(0))
        self.stretch.copy_(z.flatten(1).std(0).clamp(min=1e-3))
