"""Full-covariance Gaussian posterior (Kingma & Welling 2019, "An introduction to VAEs", section 2.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl

from vaelab.distributions.precision import full_precision
from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head
from vaelab.samplers.gaussian import LOG_STD_RANGE


class FullGaussian(MultivariateNormal):
    """N(mean, L L^T) with a closed KL to diagonal Gaussians, drawn in full precision."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, D) by reparameterisation."""
        with full_precision(self.loc):
            return super().rsample(torch.Size(sample_shape))


@register_kl(FullGaussian, Independent)
def _kl_full_diagonal(q: FullGaussian, p: Independent) -> Tensor:
    if not isinstance(p.base_dist, Normal) or p.event_shape != q.event_shape:
        raise NotImplementedError
    scale, tril = p.base_dist.scale, q.scale_tril
    distance = ((q.loc - p.base_dist.loc) / scale).square().sum(-1)
    trace = (tril / scale.unsqueeze(-1)).square().sum((-1, -2))
    log_det = scale.log().sum(-1) - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (distance + trace - q.event_shape[0]) + log_det


class FullGaussianSampler(Sampler):
    """q(z|x) = N(z; mu(x), L(x) L(x)^T), drawn as z = mu + L eps with eps ~ N(0, I).

    L is lower triangular; its diagonal is exp(s), of which the network emits s.

    Args:
        in_shape: feature shape.
        latent_shape: (D,).

    Raises:
        ValueError: for a latent map.
    """

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int]) -> None:
        super().__init__()
        if len(latent_shape) != 1:
            raise ValueError(
                f"a full covariance over a latent map of shape {tuple(latent_shape)} is too large for a dense layer to "
                "emit; choose model.latent_map=false or model/sampler=gaussian"
            )
        self.latent_shape = tuple(latent_shape)
        (size,) = self.latent_shape
        self.mean = head(in_shape, latent_shape)
        self.log_diagonal = head(in_shape, latent_shape)
        self.lower = head(in_shape, (size * (size - 1) // 2,)) if size > 1 else None

    def forward(self, features: Tensor) -> FullGaussian:
        """Maps features (B, *in_shape) to N(mu, L L^T) of batch shape (B,) and event shape (D,)."""
        tril = torch.diag_embed(at_least_float32(self.log_diagonal(features)).clamp(*LOG_STD_RANGE).exp())
        if self.lower is not None:
            row, column = torch.tril_indices(tril.shape[1], tril.shape[2], offset=-1, device=tril.device)
            tril[:, row, column] = at_least_float32(self.lower(features))
        return FullGaussian(at_least_float32(self.mean(features)), scale_tril=tril, validate_args=False)
