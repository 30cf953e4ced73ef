"""What every prior promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.distributions import Distribution


class Prior(nn.Module):
    """p(z): a distribution of empty batch shape and event shape `latent_shape`.

    Attributes:
        latent_shape: shape of z, (D,) or (D, h, w).
        space: where z lies; None is wherever the sampler draws it.
        remedy: a sampler to choose for this prior.
    """

    latent_shape: tuple[int, ...]
    space: str | None = "Euclidean space"
    remedy: str = "model/sampler=gaussian"

    def forward(self) -> Distribution:
        """Returns p(z)."""
        raise NotImplementedError

    def attach(
        self, posterior: Callable[[Tensor], Distribution], x_shape: Sequence[int], sampler: nn.Module | None = None
    ) -> None:
        """Tells the prior of the model that it belongs to; most priors need not know.

        A prior keeps methods of the model's parts at the most, never the parts, which would become its own.

        Args:
            posterior: x (B, *x_shape), in the data's own range, -> q(z|x).
            x_shape: data shape (C, H, W).
            sampler: the model's sampler, if it has one; with a codebook it is a `vaelab.distributions.Codebook`.
        """

    def initialize(self, z: Tensor) -> None:
        """Starts from codes z (N, *latent_shape) of a trained model, before it is fitted to them; most need nothing.

        Raises:
            ValueError: if there are too few.
        """

    def check_space(self, space: str, remedy: str) -> None:
        """Raises a ValueError that names both remedies if this is no density on the `space` that z is drawn on."""
        if self.space not in (None, space):
            raise ValueError(
                f"{type(self).__name__} is a prior on {self.space}, but the sampler draws z on {space}; choose "
                f"{remedy} for this sampler, or {self.remedy} for this prior"
            )
