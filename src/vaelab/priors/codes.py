"""Independent codes of a codebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent

from vaelab.distributions import Codebook, Coded
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior


class CodesPrior(Prior):
    """P(c) = prod_i pi_i(c_i) over the n = Q h w codes of a z, for samplers with a codebook of K codes.

    pi_i(k) = 1/K (van den Oord, Vinyals & Kavukcuoglu 2017, section 3.1), so that KL(q || p) = n log K nats, or
    `learned` for every i from there.

    Args:
        latent_shape: (D,) or (D, h, w).
        learned: whether the probabilities are learned.

    Raises:
        ValueError: when called or attached, if there is no sampler with a codebook.
    """

    space = "a codebook"
    remedy = "model/sampler=vector_quantizer"
    logits: Tensor

    def __init__(self, *, latent_shape: Sequence[int], learned: bool = False) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.learned = learned
        self._codes: Callable[[Tensor], Tensor] | None = None
        self._embed: Callable[[Tensor], Tensor] | None = None
        self._code_shape: tuple[int, int, int] | None = None

    def attach(
        self, posterior: Callable[[Tensor], Distribution], x_shape: Sequence[int], sampler: nn.Module | None = None
    ) -> None:
        """Takes the codebook, which stays the sampler's own, and makes the probabilities."""
        if not isinstance(sampler, Codebook):
            raise ValueError(f"CodesPrior needs a sampler with a codebook; choose {self.remedy}")
        self._codes, self._embed = sampler.codes, sampler.embed
        self._code_shape = sampler.code_shape
        if self.learned:
            self.logits = nn.Parameter(torch.zeros(*sampler.code_shape, sampler.num_codes))
        else:
            self.register_buffer("logits", torch.zeros(sampler.num_codes), persistent=False)

    @torch.no_grad()
    def initialize(self, z: Tensor) -> None:
        """Takes the frequencies of the codes, each counted once more than it occurs, if they are learned."""
        if self.learned and self._codes is not None:
            codes = self._codes(z).movedim(0, -1)  # (Q, h, w, N)
            ones = torch.ones_like(codes, dtype=self.logits.dtype)
            counts = torch.ones_like(self.logits).scatter_add_(-1, codes, ones)
            self.logits.copy_((counts / counts.sum(-1, keepdim=True)).log())

    def forward(self) -> Coded:
        """Returns the distribution of the codes, shown as one of z, of event shape `latent_shape`."""
        if self._codes is None or self._embed is None or self._code_shape is None:
            raise ValueError("a CodesPrior belongs to a codebook; call attach(posterior, x_shape, sampler) first")
        codes = Categorical(logits=at_least_float32(self.logits), validate_args=False).expand(self._code_shape)
        return Coded(Independent(codes, 3, validate_args=False), self._codes, self._embed, self.latent_shape)
