"""Normalising flows: the density of transformed noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaelab.checks import one_of, positive_int, positive_ints
from vaelab.distributions.precision import full_precision
from vaelab.numerics import at_least_float32

KINDS = ("affine", "spline")


class Bijection(Protocol):
    """An invertible map of vectors, as the flow library's transforms are."""

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x), (..., n), and log |det df/dx|, (...), for x (..., n)."""

    @property
    def inv(self) -> Bijection:
        """The inverse."""


@dataclass(frozen=True)
class Affine:
    """f(x) = shift + stretch * x, value by value, with a stretch above 0."""

    shift: Tensor  # (n,)
    stretch: Tensor  # (n,)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(x), (..., n), and log |det df/dx|, (...)."""
        return self.shift + self.stretch * x, self.stretch.log().sum().expand(x.shape[:-1])

    @property
    def inv(self) -> Affine:
        """The inverse."""
        return Affine(-self.shift / self.stretch, 1 / self.stretch)


class Flow(Distribution):
    """z = f(u) with u ~ base: log p(z) = log base(u) - log |det df/du| (Rezende & Mohamed 2015, equations 5 to 7).

    What `rsample` drew last is remembered with its density, so that `log_prob` of that very tensor costs nothing and
    needs no inverse.

    Args:
        base: distribution of u, batch shape (B,) or (), event shape (n,).
        bijections: f = f_T o ... o f_1, the first one first.
        event_shape: shape of z, of n numbers.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, base: Distribution, bijections: Sequence[Bijection], event_shape: Sequence[int]) -> None:
        self.base = base
        self.bijections = bijections
        self._drawn: tuple[Tensor, Tensor, bool] | None = None
        super().__init__(base.batch_shape, torch.Size(event_shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """f(E[u]), (B, *event): a point estimate; E[z] itself has no closed form."""
        return self._push(self.base.mean)[0].unflatten(-1, self.event_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws (*sample_shape, B, *event) by reparameterisation."""
        u = self.base.rsample(torch.Size(sample_shape))
        z, log_det = self._push(u)
        z = z.unflatten(-1, self.event_shape)
        self._drawn = z, self.base.log_prob(u) - log_det, torch.is_grad_enabled()
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (..., B), for z (..., B, *event)."""
        if self._drawn is not None:
            drawn, log_prob, with_grad = self._drawn
            if value is drawn and (with_grad or not torch.is_grad_enabled()):
                return log_prob
        u = value.flatten(-len(self.event_shape))
        u = u.expand(*torch.broadcast_shapes(u.shape[:-1], self.batch_shape), u.shape[-1])
        log_det = u.new_zeros(())
        with full_precision(u):
            for bijection in reversed(self.bijections):
                u, step = bijection.inv.call_and_ladj(u)
                log_det = log_det + step
        return self.base.log_prob(u) + log_det

    def _push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns f(u), (..., n), and log |det df/du|, (...)."""
        log_det = u.new_zeros(())
        with full_precision(u):
            for bijection in self.bijections:
                u, step = bijection.call_and_ladj(u)
                log_det = log_det + step
        return u, log_det


def load_zuko() -> ModuleType:
    """Imports the flow library zuko, without what it does to every distribution of the process (no validation)."""
    validates, parameters = Distribution._validate_args, vars(Distribution)["arg_constraints"]
    try:
        import zuko
    finally:
        Distribution._validate_args = validates
        Distribution.arg_constraints = parameters  # type: ignore[method-assign]
    return zuko


def coupling_layers(
    features: int, *, context: int, kind: str, steps: int, hidden: Sequence[int], bins: int
) -> nn.ModuleList:
    """Returns coupling layers; each, called with a context (..., context) or with nothing, returns a bijection.

    Every other entry of the vector, in turns, is transformed by a monotone map whose parameters are a network of the
    remaining entries and the context.

    Args:
        features: length of the vector; a single entry is transformed by the context alone.
        context: length of the context; 0 for none.
        kind: `affine`, z -> exp(s) z + t (Dinh, Sohl-Dickstein & Bengio 2017, "Density estimation using Real NVP",
            equations 4 and 5), or `spline`, a rational-quadratic spline on [-5, 5] and the identity outside (Durkan,
            Bekasov, Murray & Papamakarios 2019, "Neural spline flows", equation 4).
        steps: number of layers.
        hidden: widths of the hidden layers of the networks.
        bins: pieces of a spline.

    Raises:
        ValueError: for an unknown `kind` or a number below 1.
    """
    one_of("transform", kind, KINDS)
    positive_int("steps", steps), positive_int("bins", bins)
    zuko = load_zuko()
    spline = {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
    options = {"hidden_features": positive_ints("hidden", hidden), "activation": nn.ELU, "context": context}
    layers = [
        zuko.flows.coupling.GeneralCouplingTransform(
            features, mask=torch.arange(features) % 2 == i % 2, **options, **(spline if kind == "spline" else {})
        )
        for i in range(steps)
    ]
    return nn.ModuleList(lifted(layer) for layer in layers)


def lifted(layer: nn.Module) -> nn.Module:
    """Lets the network in a layer of the flow library have weights in half precision, but not its outputs."""
    if isinstance(network := getattr(layer, "hyper", None), nn.Module):
        network.register_forward_pre_hook(_as_weights)
        network.register_forward_hook(_lift)
    return layer


def _as_weights(network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].to(next(network.parameters()).dtype)


def _lift(network: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return at_least_float32(output)
