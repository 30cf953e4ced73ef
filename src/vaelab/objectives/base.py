"""What every objective promises."""

from __future__ import annotations

from torch import Tensor, nn

from vaelab.models.base import Model
from vaelab.models.terms import Terms


class Objective(nn.Module):
    """Terms and the number of batches seen -> the loss to descend, and what to log (means over the batch, in nats).

    An objective of one's own is `weigh`. To its loss are added the penalties that parts of the model ask for themselves
    (`Terms.penalties`: the codebook loss of a vector quantiser, the classifier's of a semi-supervised model), whatever
    is optimised; they are logged by name, and so are `Terms.metrics`.

    Attributes:
        num_samples: K, the draws of z that it wants for every example while training.
        compiles: whether it can be served by a compiled model: not if it takes derivatives by z itself.
    """

    num_samples: int = 1
    compiles: bool = True

    def forward(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the scalar loss with all penalties, and the logs."""
        loss, logs = self.weigh(terms, step)
        for name, penalty in terms.penalties.items():
            loss = loss + penalty.mean()
            logs[name] = penalty.detach().mean()
        if terms.penalties:
            logs["loss"] = loss.detach()
        return loss, {**logs, **{name: value.detach().mean() for name, value in terms.metrics.items()}}

    def terms(self, model: Model, x: Tensor, context: Tensor | None, step: int) -> Terms:
        """Returns the terms that are weighed while training: those of `num_samples` draws of z for every example."""
        return model(x, context, num_samples=self.num_samples)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the scalar loss without penalties, and the logs."""
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
