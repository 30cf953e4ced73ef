"""What every objective promises."""

from __future__ import annotations

from torch import Tensor, nn

from vaelab.models.terms import Terms


class Objective(nn.Module):
    """Terms and the number of batches seen -> the loss to descend, and what to log (means over the batch, in nats).

    Attributes:
        num_samples: K, the draws of z that it wants for every example while training.
    """

    num_samples: int = 1

    def forward(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the scalar loss, and the logs."""
        raise NotImplementedError


def bound_logs(loss: Tensor, log_px: Tensor, kl: Tensor) -> dict[str, Tensor | float]:
    """Returns what every objective logs: its own loss beside the true, un-annealed bound and its two terms.

    Args:
        loss: what is descended, ().
        log_px: mean of log p(x|z) over draws and examples, in nats, ().
        kl: mean of KL(q(z|x) || p(z)), in nats, ().
    """
    log_px, kl = log_px.detach(), kl.detach()
    return {"loss": loss.detach(), "elbo": log_px - kl, "reconstruction": log_px, "kl": kl}
