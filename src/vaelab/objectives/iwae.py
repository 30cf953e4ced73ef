"""Importance-weighted bounds: several draws of z for every example, weighted by w = p(x, z) / q(z|x).

MIWAE, PIWAE and CIWAE are of Rainforth et al. 2018, "Tighter variational bounds are not necessarily better".
"""

from __future__ import annotations

from torch import Tensor

from vaelab.checks import one_of, positive_int
from vaelab.models.base import Model
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.objectives.estimators import ESTIMATORS, importance_bound, log_mean_exp, resampled_bound
from vaelab.schedules import Constant, Schedule


class IWAE(Objective):
    """loss = -mean_B log (1/K) sum_k w_k, in nats per example (Burda, Grosse & Salakhutdinov 2016, equation 8).

    K = 1 is the ELBO, with the KL sampled instead of in closed form. The logged `iwae` is the bound itself; the logged
    `elbo` is that of one draw.

    Two ways to spend less on a large K. While training, K(step) = num_samples^growth(step) draws: with a schedule that
    rises from 0 to 1 the first epochs cost as little as a VAE's, and what a few draws can teach is learned by then.
    And `keep` draws, resampled among all in proportion to their weights, can stand for all of them in the gradient,
    which stays unbiased (Burda et al. 2016, section 3); all others are decoded without a gradient.

    Args:
        num_samples: K, draws of z for every example.
        estimator: of the gradient: standard, stl (biased if K > 1) or dreg; see `importance_bound`.
        growth: power of K that is drawn while training, from 0 (one draw) to 1 (all).
        keep: draws that carry the gradient; None for all.

    Raises:
        ValueError: for a `num_samples` or `keep` below 1, a `keep` of all, or an unknown `estimator`.
    """

    def __init__(
        self,
        *,
        num_samples: int = 5,
        estimator: str = "standard",
        growth: Schedule | None = None,
        keep: int | None = None,
    ) -> None:
        super().__init__()
        self.num_samples = positive_int("num_samples", num_samples)
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.compiles = estimator != "dreg"
        self.growth = growth or Constant()
        self.keep = None if keep is None else positive_int("keep", keep)
        if keep is not None and keep >= num_samples:
            raise ValueError(f"keep must be below num_samples={num_samples}, but is {keep}; null keeps all")

    def terms(self, model: Model, x: Tensor, context: Tensor | None, step: int) -> Terms:
        """Returns the terms of K(step) draws, or of `keep` among them."""
        draws = max(1, min(self.num_samples, round(self.num_samples ** self.growth(step))))
        if self.keep is None or self.keep >= draws:
            return model(x, context, num_samples=draws)
        return model.resampled_terms(x, context, num_samples=draws, keep=self.keep)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the bound `iwae`."""
        if terms.pool is not None:
            loss = -resampled_bound(terms, estimator=self.estimator)
            return loss, importance_logs(loss, terms.pool)
        loss = -importance_bound(terms, decoder_groups=1, encoder_groups=1, estimator=self.estimator)
        return loss, importance_logs(loss, terms)


class MIWAE(Objective):
    """loss = -mean_B (1/M) sum_m log (1/K) sum_k w_mk, in nats per example (Rainforth et al. 2018).

    M groups of K draws: M averages the gradient's noise away, K tightens the bound. M = 1 is IWAE, K = 1 the ELBO. The
    logged `iwae` is the bound of all M * K draws in one group, which is the tightest that they give.

    Args:
        num_groups: M.
        group_size: K.
        estimator: of the gradient: standard, stl (biased if K > 1) or dreg; see `importance_bound`.

    Raises:
        ValueError: for an M or K below 1 or an unknown `estimator`.
    """

    def __init__(self, *, num_groups: int = 8, group_size: int = 8, estimator: str = "standard") -> None:
        super().__init__()
        self.num_groups = positive_int("num_groups", num_groups)
        self.num_samples = self.num_groups * positive_int("group_size", group_size)
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.compiles = estimator != "dreg"

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the bound `iwae` of all draws."""
        groups = self.num_groups
        loss = -importance_bound(terms, decoder_groups=groups, encoder_groups=groups, estimator=self.estimator)
        return loss, importance_logs(loss, terms)


class PIWAE(Objective):
    """The decoder descends -IWAE of all M * K draws, the encoder -MIWAE of M groups of K (Rainforth et al. 2018).

    The tighter bound serves the decoder, the gradient with less noise the encoder. The loss has the value of the
    decoder's bound. One derivative by z more than MIWAE is the price.

    Args:
        num_groups: M.
        group_size: K.
        estimator: of the encoder's gradient: standard, stl (biased if K > 1) or dreg; see `importance_bound`.

    Raises:
        ValueError: for an M or K below 1 or an unknown `estimator`.
    """

    def __init__(self, *, num_groups: int = 8, group_size: int = 8, estimator: str = "standard") -> None:
        super().__init__()
        self.num_groups = positive_int("num_groups", num_groups)
        self.num_samples = self.num_groups * positive_int("group_size", group_size)
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.compiles = False

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the decoder's bound `iwae`."""
        loss = -importance_bound(terms, decoder_groups=1, encoder_groups=self.num_groups, estimator=self.estimator)
        return loss, importance_logs(loss, terms)


class CIWAE(Objective):
    """loss = -beta * ELBO - (1 - beta) * IWAE of the same K draws, in nats per example (Rainforth et al. 2018).

    The ELBO here is the mean of log w, with the KL sampled.

    Args:
        beta: share of the ELBO, from 0 (IWAE) to 1 (ELBO).
        num_samples: K, draws of z for every example.
        estimator: of the gradient: standard, stl (biased if K > 1) or dreg; see `importance_bound`.

    Raises:
        ValueError: for a `beta` outside [0, 1], a `num_samples` below 1 or an unknown `estimator`.
    """

    def __init__(self, *, beta: float = 0.5, num_samples: int = 64, estimator: str = "standard") -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], but is {beta!r}")
        self.beta = beta
        self.num_samples = positive_int("num_samples", num_samples)
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.compiles = estimator != "dreg"

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the bound `iwae`."""
        draws = len(terms.log_px)
        elbo = importance_bound(terms, decoder_groups=draws, encoder_groups=draws, estimator=self.estimator)
        iwae = importance_bound(terms, decoder_groups=1, encoder_groups=1, estimator=self.estimator)
        loss = -(self.beta * elbo + (1 - self.beta) * iwae)
        return loss, importance_logs(loss, terms)


def importance_logs(loss: Tensor, terms: Terms) -> dict[str, Tensor | float]:
    """Returns `bound_logs`, and as `iwae` the mean over the batch of log (1/K) sum_k w_k of all draws, in nats."""
    iwae = log_mean_exp(terms.log_weights.detach(), 0).mean()
    return {**bound_logs(loss, terms.log_px.mean(), terms.kl.mean()), "iwae": iwae}
