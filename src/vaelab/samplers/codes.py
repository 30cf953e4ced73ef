"""What every sampler with a codebook promises, and its posterior: one sequence of codes for every example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vaelab.checks import positive_int
from vaelab.distributions import Coded
from vaelab.samplers.base import Sampler, head
from vaelab.samplers.deterministic import PointMass


class Quantized(PointMass):
    """q(c|x) = 1 for the codes c of x, and z = embed(c): a probability on a finite set.

    log q = 0, the entropy is 0 and KL(q || p) = -log P(c), so that the ELBO is a bound on log p(x), unlike that of a
    point mass among all vectors (`Delta`).

    Args:
        point: z (B, *latent_shape), whose gradient goes where the sampler sends it.
        codes: c, (B, Q, h, w).
        event_dims: number of dimensions of `latent_shape`.
        penalties: what the sampler adds to any loss, by name, each (B,) and with its weight in.
        metrics: what is only logged, by name, each ().
    """

    def __init__(
        self,
        point: Tensor,
        codes: Tensor,
        event_dims: int,
        *,
        penalties: Mapping[str, Tensor] | None = None,
        metrics: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(point, event_dims)
        self.codes = codes
        self.penalties, self.metrics = penalties or {}, metrics or {}

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns 0 for its own z and -inf for every other, (..., B)."""
        event = tuple(range(-len(self.event_shape), 0))
        its_own = (value == self.point).flatten(event[0]).all(-1)
        return torch.zeros_like(its_own, dtype=self.point.dtype).masked_fill(~its_own, -math.inf)

    def entropy(self) -> Tensor:
        """Zeros, (B,)."""
        return self.point.new_zeros(self.batch_shape)


@register_kl(Quantized, Distribution)
def _kl_quantized(q: Quantized, p: Distribution) -> Tensor:
    return -p.log_prob(q.point)


@register_kl(Quantized, Coded)
def _kl_coded(q: Quantized, p: Coded) -> Tensor:
    # Of the codes themselves: a codebook may have moved since it gave out z, and a sum of vectors hides its parts.
    return -p.base.log_prob(q.codes)


class CodeSampler(Sampler):
    """q(z|x) that puts every example on whole numbers c(x), the codes, which a codebook turns into z.

    A latent (D,) or (D, h, w) has D / d groups of d channels, and every group of every position is coded by itself.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).
        num_codes: K.
        code_dim: d, which divides D.

    Attributes:
        num_codes: K.
        code_shape: (Q, h, w) with Q = D / d, or a multiple of it; (Q, 1, 1) for latent vectors.
        projection: the layer from features to z_e, what is quantised.

    Raises:
        ValueError: if d does not divide D, for a number below 1, or a latent map that the features cannot give.
    """

    space = "a codebook"
    remedy = "model/prior=codes"

    def __init__(self, *, in_shape: Sequence[int], latent_shape: Sequence[int], num_codes: int, code_dim: int) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        size, *positions = latent_shape
        self.num_codes, self.code_dim = positive_int("num_codes", num_codes), positive_int("code_dim", code_dim)
        height, width = positions or (1, 1)
        if size % code_dim:
            raise ValueError(f"code_dim must divide latent_dim={size}, but is {code_dim}")
        self.groups = size // code_dim
        self.code_shape = (self.groups, height, width)
        self.projection = head(in_shape, latent_shape)

    def codes(self, z: Tensor) -> Tensor:
        """Returns the codes (..., Q, h, w) of z (..., *latent_shape), whole numbers below K."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """Returns the z (..., *latent_shape) that codes (..., Q, h, w) stand for."""
        raise NotImplementedError

    def split(self, z: Tensor) -> Tensor:
        """Returns the vectors that are coded, (..., G, h, w, d), of z (..., *latent_shape)."""
        batch = z.shape[: z.ndim - len(self.latent_shape)]
        return z.reshape(*batch, self.groups, self.code_dim, *self.code_shape[1:]).movedim(-3, -1)

    def join(self, vectors: Tensor) -> Tensor:
        """Returns z (..., *latent_shape) of its vectors (..., G, h, w, d)."""
        return vectors.movedim(-1, -3).reshape(*vectors.shape[:-4], *self.latent_shape)


@torch.no_grad()
def usage(codes: Tensor, num_codes: int) -> dict[str, Tensor]:
    """Returns how evenly a batch uses the codes: `perplexity` = exp(-sum_k f_k log f_k), and `codes_used`, each ().

    f_k is the share of code k among the codes of the batch. Of several codebooks it is their mean.

    Args:
        codes: (books, N).
        num_codes: K.
    """
    counts = torch.zeros(len(codes), num_codes, dtype=torch.float32, device=codes.device)
    counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=counts.dtype))
    entropy = torch.special.entr(counts / codes.shape[1]).sum(1)
    return {"perplexity": entropy.exp().mean(), "codes_used": (counts > 0).sum(1).to(counts.dtype).mean()}
