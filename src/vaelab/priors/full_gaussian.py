"""Gaussian with a learned mean and full covariance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaelab.distributions import Flow
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class FullGaussianPrior(Prior):
    """p(z) = N(z; mu, L L^T) with mu and the lower triangle L learned, from mu = 0 and L = 1.

    The density that Ghosh et al. (2020, section 4) fit to the codes of a trained autoencoder: `refit` starts from their
    mean and covariance, which is the maximum of the likelihood. The KL of a diagonal Gaussian posterior is estimated by
    log q(z|x) - log p(z) of the draws.

    Args:
        latent_shape: (D,) or (D, h, w), the latter as one vector.
    """

    def __init__(self, *, latent_shape: Sequence[int]) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        size = math.prod(latent_shape)
        self.mean = nn.Parameter(torch.zeros(size))
        self.log_diagonal = nn.Parameter(torch.zeros(size))
        self.lower = nn.Parameter(torch.zeros(size * (size - 1) // 2))

    @property
    def scale_tril(self) -> Tensor:
        """L, (D, D)."""
        size = len(self.mean)
        diagonal = at_least_float32(self.log_diagonal).exp().diag_embed()
        rows, columns = torch.tril_indices(size, size, -1, device=diagonal.device)
        return diagonal.index_put((rows, columns), at_least_float32(self.lower))

    def forward(self) -> Flow:
        """Returns the Gaussian, of event shape `latent_shape`."""
        normal = MultivariateNormal(at_least_float32(self.mean), scale_tril=self.scale_tril, validate_args=False)
        return Flow(normal, [], self.latent_shape)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Takes the mean and the covariance of the codes."""
        flat = z.flatten(1).cpu().double()  # not every device has float64
        size = flat.shape[1]
        if len(flat) <= size:
            raise ValueError(f"the covariance of {size} dimensions needs more than {size} codes, not {len(flat)}")
        covariance = torch.cov(flat.T, correction=0).reshape(size, size)
        ridge = 1e-6 * covariance.diagonal().mean().clamp(min=1e-6)
        covariance.diagonal().add_(ridge)  # codes may fill a subspace only
        tril = torch.linalg.cholesky(covariance)
        self.mean.copy_(flat.mean(0))
        self.log_diagonal.copy_(tril.diagonal().log())
        rows, columns = torch.tril_indices(size, size, -1, device=tril.device)
        self.lower.copy_(tril[rows, columns])
