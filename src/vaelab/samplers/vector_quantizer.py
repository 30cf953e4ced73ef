"""Vector quantisation (van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vaelab.checks import at_least_zero
from vaelab.distributions.precision import full_precision
from vaelab.numerics import at_least_float32
from vaelab.samplers.codebook import LearnedCodebook
from vaelab.samplers.codes import CodeSampler, Quantized, usage


class VectorQuantizer(CodeSampler):
    """z = e_k with k = argmin_k |z_e(x) - e_k|^2, for every position of a map and every d channels there.

    Its posterior's penalties are those of the paper (equation 3), to be added to -log p(x|z),

        codebook = |sg[z_e] - e|^2,   commitment = beta |z_e - sg[e]|^2,

    per example and summed over the dimensions of z, beside a log-likelihood in nats that is summed over the pixels. The
    gradient of z goes on to z_e as it is: straight through. With update=ema there is no codebook penalty. The KL to the
    uniform prior is n log K nats for n codes, whatever the encoder does.

    How the vectors are learned, started and revived is told in `LearnedCodebook`; those of the paper start anywhere and
    are never revived.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w).
        num_codes: K.
        code_dim: d; None is D, one code for every position. All groups of d channels share the codebook.
        update: of the codebook: ema or gradient.
        decay: of ema, and of the record of use.
        epsilon: of the Laplace smoothing of ema.
        commitment: beta.
        revive_below: share of the even use 1 / K under which a code is put on a random z_e of the batch; 0 for never.

    Raises:
        ValueError: if d does not divide D, for an unknown `update`, a value outside its range, or a latent map that the
            features cannot give.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        latent_shape: Sequence[int],
        num_codes: int = 512,
        code_dim: int | None = None,
        update: str = "ema",
        decay: float = 0.99,
        epsilon: float = 1e-6,
        commitment: float = 0.25,
        revive_below: float = 0.1,
    ) -> None:
        code_dim = latent_shape[0] if code_dim is None else code_dim
        super().__init__(in_shape=in_shape, latent_shape=latent_shape, num_codes=num_codes, code_dim=code_dim)
        self.commitment = at_least_zero("commitment", commitment)
        codebook = LearnedCodebook(
            num_codes=num_codes,
            code_dim=code_dim,
            update=update,
            decay=decay,
            epsilon=epsilon,
            revive_below=revive_below,
        )
        self.update = update
        self.codebooks = nn.ModuleList([codebook])  # each codes what those before it leave

    @property
    def _codebooks(self) -> list[LearnedCodebook]:
        return cast(list[LearnedCodebook], list(self.codebooks))

    def forward(self, features: Tensor) -> Quantized:
        """Maps features (B, *in_shape) to codes of batch shape (B,) and event shape `latent_shape`."""
        z_e = self.split(at_least_float32(self.projection(features)))  # (B, G, h, w, d)
        residual, z = z_e, torch.zeros_like(z_e)
        codebook_loss, commitment_loss = z_e.new_zeros(len(z_e)), z_e.new_zeros(len(z_e))
        codes = []
        with full_precision(z_e):
            for codebook in self._codebooks:
                chosen, vectors = codebook(residual)
                codes.append(chosen)
                codebook_loss = codebook_loss + squares(residual.detach() - vectors)
                residual = residual - vectors.detach()
                commitment_loss = commitment_loss + squares(residual)
                z = z + vectors.detach()
        penalties = {"commitment": self.commitment * commitment_loss}
        if self.update == "gradient":
            penalties["codebook"] = codebook_loss
        return Quantized(
            self.join(z + (z_e - z_e.detach())),  # exactly z: the bracket is 0
            torch.cat(codes, 1),
            len(self.latent_shape),
            penalties=penalties,
            metrics=usage(torch.stack(codes).flatten(1), self.num_codes),
        )

    @torch.no_grad()
    def codes(self, z: Tensor) -> Tensor:
        """Returns the codes (..., Q, h, w) of the vectors nearest to z (..., *latent_shape)."""
        residual = self.split(at_least_float32(z))
        codes = []
        for codebook in self._codebooks:
            codes.append(codebook.nearest(residual))
            residual = residual - codebook.embed(codes[-1])
        return torch.cat(codes, -3)

    def embed(self, codes: Tensor) -> Tensor:
        """Returns the z (..., *latent_shape) of codes (..., Q, h, w)."""
        parts = zip(self._codebooks, codes.split(self.groups, -3), strict=True)
        return self.join(torch.stack([codebook.embed(part) for codebook, part in parts]).sum(0))


def squares(x: Tensor) -> Tensor:
    """Returns the sum of squares of every example, (B,)."""
    return x.square().flatten(1).sum(1)
