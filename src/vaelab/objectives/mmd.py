"""Maximum mean discrepancy between the aggregate posterior and the prior: InfoVAE, MMD-VAE, WAE-MMD."""

from __future__ import annotations

import torch
from torch import Tensor

from vaelab.checks import one_of, positive, positive_int
from vaelab.models.terms import Latent, Terms, sum_groups
from vaelab.objectives.base import Objective, bound_logs


class InfoVAE(Objective):
    """loss = -mean_B,K log p(x|z) + (1 - alpha) * KL(q(z|x) || p(z)) + (alpha + lambda - 1) * MMD^2(q(z), p(z)).

    (Zhao, Song & Ermon 2019, "InfoVAE".) alpha = 0 and lambda = 1 is the ELBO. alpha = 1 leaves out the KL: that is
    MMD-VAE (Zhao et al., rbf kernel) and WAE-MMD (Tolstikhin et al. 2018, algorithm 2, imq kernel), whose cost is -log
    p(x|z) here: the squared error up to a constant for a Gaussian of fixed scale.

    MMD^2 is estimated without bias from the batch and as many draws of the prior; latent groups are added. Only
    the posterior is moved towards the prior: a learned prior gets no gradient from it.

    Args:
        alpha: weight of the mutual information between x and z that is given back, at most 1.
        lambda_mmd: lambda, at least 1 - alpha.
        kernel: imq or rbf; see `kernel_matrix`.
        bandwidth: C of the kernel, in squared units of z; None takes the kernel's own.
        num_samples: K, draws of z for every example; each is compared by itself.

    Raises:
        ValueError: for an `alpha` above 1, a `lambda_mmd` below 1 - `alpha`, an unknown `kernel`, a `bandwidth` that is
            not above 0 or a `num_samples` below 1.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        lambda_mmd: float = 1000.0,
        kernel: str = "rbf",
        bandwidth: float | None = None,
        num_samples: int = 1,
    ) -> None:
        super().__init__()
        if not alpha <= 1:
            raise ValueError(f"alpha must be at most 1, but is {alpha!r}")
        if not lambda_mmd >= 1 - alpha:
            raise ValueError(f"lambda_mmd must be at least 1 - alpha = {1 - alpha}, but is {lambda_mmd!r}")
        self.kl_weight, self.mmd_weight = 1 - alpha, alpha + lambda_mmd - 1
        self.kernel = one_of("kernel", kernel, ("imq", "rbf"))
        self.bandwidth = bandwidth if bandwidth is None else positive("bandwidth", bandwidth)
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the unweighted `mmd`, which is MMD^2 and may fall below 0."""
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        mmd = sum_groups([self._mmd(latent) for latent in terms.latents])
        loss = self.kl_weight * kl + self.mmd_weight * mmd - log_px
        return loss, {**bound_logs(loss, log_px, kl), "mmd": mmd.detach()}

    def _mmd(self, latent: Latent) -> Tensor:
        return squared_mmd(latent.z.flatten(2), prior_draws(latent).flatten(2), self.kernel, self.bandwidth)


def prior_draws(latent: Latent) -> Tensor:
    """Draws one z from the prior for every z of the posterior, without gradient, (K, B, *latent_shape)."""
    missing = 2 - len(latent.p.batch_shape)  # of the dimensions (K, B)
    with torch.no_grad():
        return latent.p.sample(latent.z.shape[:missing])


def squared_mmd(x: Tensor, y: Tensor, kernel: str, bandwidth: float | None = None) -> Tensor:
    """Returns the unbiased estimate of MMD^2 between x and y, each (K, B, D), averaged over K, ().

    sum_i!=j [ k(x_i, x_j) + k(y_i, y_j) ] / (B (B - 1)) - 2 sum_ij k(x_i, y_j) / B^2 (Gretton et al. 2012, lemma 6).
    Its mean is 0 if both come from one distribution. A batch of fewer than 2 has no such estimate and counts as 0.

    Args:
        x: draws of one distribution.
        y: draws of the other.
        kernel: imq or rbf.
        bandwidth: of the kernel; None takes its own.
    """
    size = x.shape[1]
    if size < 2:
        return x.new_zeros(())

    def within(z: Tensor) -> Tensor:
        return (kernel_matrix(z, z, kernel, bandwidth).sum((1, 2)) - size) / (size * (size - 1))  # k(z, z) = 1

    between = kernel_matrix(x, y, kernel, bandwidth).mean((1, 2))
    return (within(x) + within(y) - 2 * between).mean()


def kernel_matrix(x: Tensor, y: Tensor, kernel: str, bandwidth: float | None = None) -> Tensor:
    """Returns k(x_i, y_j) for x (K, I, D) and y (K, J, D), (K, I, J), with d^2 = |x_i - y_j|^2.

    - imq: C / (C + d^2), the inverse multiquadric; C = 2 D by default, the mean d^2 of two draws from a standard normal
      prior (Tolstikhin et al. 2018, section 4).
    - rbf: exp(-d^2 / C), the Gaussian; C = D^2 by default (the code of Zhao et al. 2019).

    Args:
        x: points.
        y: points.
        kernel: imq or rbf.
        bandwidth: C, in squared units of z; None takes the kernel's own.
    """
    size = x.shape[-1]
    squares = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    if kernel == "imq":
        c = 2 * size if bandwidth is None else bandwidth
        return c / (c + squares)
    c = size**2 if bandwidth is None else bandwidth
    return (-squares / c).exp()
