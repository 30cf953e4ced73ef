"""Von Mises-Fisher posterior on the unit sphere (Davidson et al. 2018, "Hyperspherical variational auto-encoders")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Independent
from torch.nn.functional import normalize, softplus

from vaelab.distributions import ChannelsFirst, VonMisesFisher
from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head

# Every direction is almost equally likely here: a KL below 1e-6 nats.
MIN_CONCENTRATION = 1e-3


class VonMisesFisherSampler(Sampler):
    """q(z|x) = C_D(kappa(x)) exp(kappa(x) mu(x) . z) for unit vectors z in D dimensions (section 3.1).

    The network emits a vector, whose direction is mu, and s with kappa = D softplus(s) + 0.001. Of a latent map every
    position has a unit vector of its own along the channels. The KL to the uniform distribution has a closed form. The
    `mean` is mu, a point estimate on the sphere. Deviation from the paper's code (kappa = softplus(s) + 1): draws keep
    to mu only when kappa is of the order of D, so that kappa starts there; in many dimensions a start near 1 is noise.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w), with D at least 2.

    Raises:
        ValueError: for fewer than 2 dimensions, or a latent map that the features cannot give.
    """

    space = "the unit sphere"
    remedy = "model/prior=uniform_sphere"

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        if latent_shape[0] < 2:
            raise ValueError(f"latent_dim must be at least 2 for unit vectors, but is {latent_shape[0]}")
        self.direction = head(in_shape, latent_shape)
        self.concentration = head(in_shape, (1, *latent_shape[1:]))

    def forward(self, features: Tensor) -> ChannelsFirst:
        """Maps features (B, *in_shape) to vMF(mu, kappa) of batch shape (B,) and event shape `latent_shape`."""
        direction = normalize(at_least_float32(self.direction(features)), dim=1).movedim(1, -1)
        scale = softplus(at_least_float32(self.concentration(features))).squeeze(1)
        fisher = VonMisesFisher(direction, self.latent_shape[0] * scale + MIN_CONCENTRATION)
        return ChannelsFirst(Independent(fisher, len(self.latent_shape) - 1, validate_args=False), parts=1)
