"""Categorical posterior, drawn by the Gumbel-softmax (Jang, Gu & Poole 2017; Maddison, Mnih & Teh 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.nn.functional import one_hot

from vaelab.checks import positive, positive_int
from vaelab.distributions import ChannelsFirst, OneHot, RelaxedOneHot
from vaelab.distributions.one_hot import gumbel_like
from vaelab.numerics import at_least_float32
from vaelab.samplers.base import Sampler, head


class StraightThroughOneHot(OneHot):
    """Exact one-hot draws with the gradient of softmax((logits + g) / lambda) (Jang et al. 2017, section 2.2).

    Args:
        temperature: lambda, above 0.
        logits: log-probabilities up to a constant, (..., n).
    """

    has_rsample = True

    def __init__(self, temperature: float, logits: Tensor) -> None:
        self.temperature = temperature
        super().__init__(logits)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws one-hot vectors (*sample_shape, B, n)."""
        logits = self.logits.expand(*sample_shape, *self.logits.shape)
        noisy = logits + gumbel_like(logits)
        soft = (noisy / self.temperature).softmax(-1)
        hard = one_hot(noisy.argmax(-1), noisy.shape[-1]).to(soft)
        return hard + (soft - soft.detach())  # exactly `hard`: the bracket is 0


class CategoricalSampler(Sampler):
    """q(z|x) = prod_j Cat(z_j; softmax(l_j(x))): D / n variables z_j of n classes, one-hot, side by side.

    With `straight_through`, z is exactly one-hot: log p(x|z) and the closed KL between categoricals give the true ELBO
    of the discrete model, and only its gradient by the encoder is biased, that of the Gumbel-softmax (Jang et al.
    2017, equations 1 and 2). Without, z = softmax((l + g) / lambda) is a draw from the Concrete density, and the prior
    must be one, too (model.prior.temperature): the ELBO is that of the relaxed model, its gradient unbiased (Maddison
    et al. 2017, appendix C). Relaxed draws with the KL of the categoricals would bound neither and are not offered.

    The temperature is constant. The `mean` holds the probabilities of the classes.

    Args:
        in_shape: feature shape.
        latent_shape: (D,) or (D, h, w) with D a multiple of `classes`; a map has D / n variables at every position.
        classes: n.
        temperature: lambda.
        straight_through: whether the decoder gets one-hot vectors.

    Raises:
        ValueError: if the classes do not divide D, for a value outside its range, or a latent map that the features
            cannot give.
    """

    def __init__(
        self,
        *,
        in_shape: Sequence[int],
        latent_shape: Sequence[int],
        classes: int = 10,
        temperature: float = 0.5,
        straight_through: bool = True,
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.classes = positive_int("classes", classes)
        self.temperature = positive("temperature", temperature)
        self.straight_through = straight_through
        if classes < 2 or latent_shape[0] % classes:
            raise ValueError(
                f"classes must be at least 2 and divide latent_dim={latent_shape[0]}, but is {classes}; "
                f"30 variables of 10 classes take latent_dim=300 model.sampler.classes=10"
            )
        kind = "one-hot vectors" if straight_through else "the simplices"
        self.space = f"{kind} of {classes} classes"
        relaxed = "null" if straight_through else str(temperature)
        self.remedy = f"model/prior=categorical model.prior.classes={classes} model.prior.temperature={relaxed}"
        self.logits = head(in_shape, latent_shape)

    def forward(self, features: Tensor) -> ChannelsFirst:
        """Maps features (B, *in_shape) to categoricals of batch shape (B,) and event shape `latent_shape`."""
        logits = at_least_float32(self.logits(features)).movedim(1, -1).unflatten(-1, (-1, self.classes))
        variables: Distribution
        if self.straight_through:
            variables = StraightThroughOneHot(self.temperature, logits)
        else:
            variables = RelaxedOneHot(self.temperature, logits)
        return ChannelsFirst(Independent(variables, len(self.latent_shape), validate_args=False), parts=2)
