"""Mixture of discretised logistics."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily

from vaelab.checks import positive_int
from vaelab.likelihoods.base import scale_from
from vaelab.likelihoods.discrete import DiscreteLikelihood
from vaelab.likelihoods.discretized_logistic import MIN_SCALE, DiscretizedLogistic


class DiscretizedLogisticMixtureLikelihood(DiscreteLikelihood):
    """P(x|z) = prod_i sum_m pi_im [F((x_i + h/2 - mu_im) / s_im) - F((x_i - h/2 - mu_im) / s_im)], F = sigmoid.

    With h = 1 / (L - 1); the levels 0 and L - 1 take the tails (Salimans, Karpathy, Chen & Kingma 2017, "PixelCNN++",
    equation 2). The decoder emits M logits of pi, then M locations mu, then M log scales log s for every value (P = 3
    M). Deviation from the paper: every channel has weights of its own and depends on no other channel (the paper
    shares the weights of a pixel, and makes green depend on red, and blue on both: equation 3).

    Args:
        levels: L, the number of grey levels of the data (256 for 8 bits).
        num_components: M.

    Raises:
        ValueError: for floating-point data (None), fewer than two levels or no component.
    """

    def __init__(self, *, levels: int | None, num_components: int = 10) -> None:
        super().__init__(levels=levels)
        self.params_per_channel = 3 * positive_int("num_components", num_components)

    def forward(self, params: Tensor) -> Independent:
        """Maps logits, locations and log scales (B, 3 * M * C, H, W) to probabilities of the L levels."""
        logits, location, log_scale = self.split(params).movedim(0, -1).chunk(3, dim=-1)  # each (B, C, H, W, M)
        scale = scale_from(log_scale, floor=MIN_SCALE / (self.levels - 1))
        mixture = MixtureSameFamily(
            Categorical(logits=logits, validate_args=False),
            DiscretizedLogistic(location, scale, self.levels),
            validate_args=False,
        )
        return Independent(mixture, 3, validate_args=False)
