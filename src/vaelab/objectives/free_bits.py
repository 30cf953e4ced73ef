"""Free bits: a KL that costs nothing up to a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from vaelab.checks import at_least_zero, one_of, positive_int
from vaelab.models.terms import Latent, Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.schedules import Constant, Schedule


class FreeBits(Objective):
    """loss = -mean_B,K log p(x|z) + beta * w(step) * sum_j max(free_nats, mean_B KL_j), in nats per example.

    (Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow", appendix C.8.) Below the
    threshold a KL_j has no gradient, so that nothing keeps the encoder from using that latent. The mean over the batch
    is taken before the maximum. The logged `elbo` has the KL as it is.

    Args:
        free_nats: the threshold lambda of every KL_j, in nats.
        per: what j runs over: dimension (every latent value), channel (of latent maps, summed over positions; the same
            as dimension for vectors) or group (every latent group as a whole).
        beta: final weight of the KL.
        schedule: w, a function of the number of batches seen.
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for a negative `free_nats` or `beta`, an unknown `per` or a `num_samples` below 1; when called, for
            a posterior or prior that does not factorise, unless `per` is group.
    """

    def __init__(
        self,
        *,
        free_nats: float = 0.5,
        per: str = "dimension",
        beta: float = 1.0,
        schedule: Schedule | None = None,
        num_samples: int = 1,
    ) -> None:
        super().__init__()
        self.free_nats = at_least_zero("free_nats", free_nats)
        self.per = one_of("per", per, ("dimension", "channel", "group"))
        self.beta = at_least_zero("beta", beta)
        self.schedule = schedule or Constant()
        self.num_samples = positive_int("num_samples", num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the weight `beta` that was in force."""
        beta = self.beta * self.schedule(step)
        log_px = terms.log_px.mean()
        kls = torch.cat([self._kls(latent) for latent in terms.latents])
        loss = beta * kls.clamp(min=self.free_nats).sum() - log_px
        return loss, {**bound_logs(loss, log_px, terms.kl.mean()), "beta": beta}

    def _kls(self, latent: Latent) -> Tensor:
        """Returns the mean KL_j over the batch, (J,)."""
        if self.per == "group":
            return latent.kl.mean().unsqueeze(0)
        if latent.kl_per_dim is None:
            raise ValueError(
                f"per={self.per} needs a posterior and a prior that factorise over dimensions, but these are "
                f"{type(latent.q).__name__} and {type(latent.p).__name__}; choose per=group"
            )
        kl = latent.kl_per_dim.reshape(-1, *latent.z.shape[2:]).mean(0)  # (*latent_shape)
        return kl.flatten() if self.per == "dimension" else kl.reshape(len(kl), -1).sum(1)
