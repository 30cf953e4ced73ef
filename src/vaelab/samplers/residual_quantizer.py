"""Residual vector quantisation (Zeghidour et al. 2021, "SoundStream"; Lee et al. 2022, RQ-VAE)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from vaelab.checks import positive_int
from vaelab.samplers.vector_quantizer import VectorQuantizer


class ResidualQuantizer(VectorQuantizer):
    """z = sum_t e_t: the vector of codebook t is the nearest to what those before it leave, z_e - sum_s<t e_s.

    T codes of K values for every position (Lee, Kim, Kim, Cho & Han 2022, "Autoregressive image generation using
    residual quantization", section 3.1): K^T sums from T K vectors. The penalties add up over the depths,

        codebook = sum_t |sg[z_e - sum_s<t e_s] - e_t|^2,   commitment = beta sum_t |z_e - sg[sum_s<=t e_s]|^2.

    Every depth has a codebook of its own, as in SoundStream (Zeghidour, Luebs, Omran, Skoglund & Tagliasacchi 2021), or
    all of them share one, as in Lee et al.; a shared one moves after each depth.

    The codes of a posterior are its own: `codes(z)` can but look for them anew, from the first codebook on, and where
    the codebooks overlap may find others, with another sum.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).
        depth: T.
        shared: whether all depths have the same codebook.
        num_codes: K.
        code_dim: d; None is D. All groups of d channels share the codebooks.
        update: of the codebooks: ema or gradient.
        decay: of ema, and of the record of use.
        epsilon: of the Laplace smoothing of ema.
        commitment: beta.
        revive_below: share of the even use 1 / K under which a code is put on a random residual; 0 for never.

    Raises:
        ValueError: for a `depth` below 1, and as for a VectorQuantizer.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        latent_shape: Sequence[int],
        depth: int = 4,
        shared: bool = False,
        num_codes: int = 512,
        code_dim: int | None = None,
        update: str = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-6,
        commitment: float = 0.25,
        revive_below: float = 0.1,
    ) -> None:
        super().__init__(
            in_shape=in_shape,
            latent_shape=latent_shape,
            num_codes=num_codes,
            code_dim=code_dim,
            update=update,
            decay=decay,
            epsilon=epsilon,
            commitment=commitment,
            revive_below=revive_below,
        )
        first, deeper = self.codebooks[0], range(1, positive_int("depth", depth))
        self.codebooks.extend(first if shared else copy.deepcopy(first) for _ in deeper)
        self.code_shape = (depth * self.groups, *self.code_shape[1:])
