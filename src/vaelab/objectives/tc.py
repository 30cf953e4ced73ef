"""The KL taken apart into mutual information, total correlation and the KL of every dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.checks import at_least_zero, one_of, positive_int
from vaelab.models.terms import Latent, Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.objectives.estimators import only_latent
from vaelab.schedules import Constant, Schedule


class BetaTCVAE(Objective):
    """loss = -mean_B,K log p(x|z) + alpha * MI + beta * w(step) * TC + gamma * DWKL, in nats per example.

    (Chen, Li, Grosse & Duvenaud 2018, equations 2 and 4.) With q(z) the aggregate posterior of the training set, the
    mean KL(q(z|x) || p(z)) is the index-code mutual information MI = KL(q(z, n) || q(z) p(n)), plus the total
    correlation TC = KL(q(z) || prod_j q(z_j)), plus the dimension-wise KL, DWKL = sum_j KL(q(z_j) || p(z_j)). All three
    are sampled; for every draw they add up to log q(z|x) - log p(z) exactly, so that alpha = beta = gamma = 1 is the
    ELBO.

    q(z) and q(z_j) are estimated from the batch; see `log_batch_weights`.

    Args:
        train_size: N, examples in the training set.
        alpha: weight of the mutual information.
        beta: final weight of the total correlation.
        gamma: weight of the dimension-wise KL.
        schedule: w, a function of the number of batches seen.
        sampling: stratified or minibatch_weighted.
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for a negative weight, an unknown `sampling`, or a size below 1; when called, for a hierarchy or a
            posterior that does not factorise over dimensions.
    """

    def __init__(
        self,
        *,
        train_size: int,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        schedule: Schedule | None = None,
        sampling: str = "stratified",
        num_samples: int = 1,
    ) -> None:
        super().__init__()
        self.train_size = positive_int("train_size", train_size)
        self.alpha = at_least_zero("alpha", alpha)
        self.beta = at_least_zero("beta", beta)
        self.gamma = at_least_zero("gamma", gamma)
        self.schedule = schedule or Constant()
        self.sampling = one_of("sampling", sampling, ("stratified", "minibatch_weighted"))
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the three parts of the KL and the weight `beta` that was in force."""
        beta = self.beta * self.schedule(step)
        latent = only_latent(terms, "the total correlation")
        z = latent.z
        log_weights = log_batch_weights(z.shape[1], self.train_size, self.sampling, dtype=z.dtype, device=z.device)
        mi, tc, dwkl = (part.mean() for part in decompose_kl(latent, log_weights))
        log_px = terms.log_px.mean()
        loss = self.alpha * mi + beta * tc + self.gamma * dwkl - log_px
        parts = {"mutual_information": mi, "total_correlation": tc, "dimension_wise_kl": dwkl}
        logs = bound_logs(loss, log_px, terms.kl.mean())
        return loss, {**logs, **{name: part.detach() for name, part in parts.items()}, "beta": beta}


def log_batch_weights(
    batch_size: int,
    train_size: int,
    sampling: str,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """Returns log W of the estimate q(z_i) = sum_j W_ij q(z_i|x_j) from the batch that x_i is in, (B, B).

    - stratified: W_ii = 1 / N for the example itself, 1 / M for the others (M = B - 1) but (N - M) / (N M) for one of
      them (Chen et al. 2018, appendix C.2). Rows add up to 1, and the mean over random batches that hold x_i is q(z_i)
      itself. (The paper's own code has 1 / N in the first column instead of on the diagonal.)
    - minibatch_weighted: W = 1 / (N B) (equation 3). N moves the value but not the gradient. The value is biased, by
      the factor 1 / N even for a batch that is the whole training set: TC over D dimensions is then (D - 1) log N too
      large.

    A batch larger than the training set, as evaluation may have, counts as N = B.

    Args:
        batch_size: B.
        train_size: N, examples in the training set.
        sampling: stratified or minibatch_weighted.
        dtype: of the result.
        device: of the result.
    """
    train_size = max(train_size, batch_size)
    if sampling == "minibatch_weighted":
        log_weight = -math.log(train_size * max(batch_size, 1))
        return torch.full((batch_size, batch_size), log_weight, dtype=dtype, device=device)
    others = max(batch_size - 1, 1)
    weights = torch.full((batch_size, batch_size), 1 / others, dtype=dtype, device=device)
    index = torch.arange(batch_size, device=device)
    weights[index, index.roll(-1)] = (train_size - others) / (train_size * others)
    weights[index, index] = 1 / train_size
    return weights.log()


def decompose_kl(latent: Latent, log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mutual information, total correlation and dimension-wise KL of every draw in nats, each (K, B).

    log q(z|x) - log q(z), log q(z) - sum_j log q(z_j) and sum_j log q(z_j) - log p(z).

    Args:
        latent: with a posterior that factorises over dimensions.
        log_weights: log W from `log_batch_weights`, (B, B).

    Raises:
        ValueError: for a posterior that does not factorise over dimensions.
    """
    log_q = _factors(latent.q).log_prob(latent.z.unsqueeze(2)).flatten(3)  # (K, B, B, D): log q(z_id | x_j)
    # The weight of x_j counts once in a density: once in the joint, once in each marginal.
    log_qz = (log_q.sum(-1) + log_weights).logsumexp(-1)
    log_qz_product = (log_q + log_weights.unsqueeze(-1)).logsumexp(2).sum(-1)
    return latent.log_qz - log_qz, log_qz - log_qz_product, log_qz_product - latent.log_pz


def _factors(q: Distribution) -> Distribution:
    if not isinstance(q, Independent) or q.base_dist.event_shape or len(q.batch_shape) != 1:
        raise ValueError(
            "the total correlation needs a posterior that factorises over dimensions, but this is a "
            f"{type(q).__name__} of batch shape {tuple(q.batch_shape)}; choose model/sampler=gaussian"
        )
    return q.base_dist
