"""GECO: the smallest KL that reconstructs as well as asked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaelab.checks import fraction, positive, positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective, bound_logs

LOG_LAMBDA_RANGE = (-10.0, 10.0)  # wide enough never to bind where the target can be reached


class GECO(Objective):
    """loss = mean_B,K KL(q(z|x) || p(z)) + lambda * C, where C = target - mean_B,K log p(x|z) is to be <= 0, in nats.

    (Rezende & Viola 2018, "Taming VAEs", algorithm 1.) After every training batch lambda is multiplied by
    exp(rate * C), with C averaged over past batches: it rises while reconstructions are worse than asked, and falls
    while they are better. Deviations from the paper: C is about log p(x|z) instead of the squared error (for a Gaussian
    of fixed scale, one is a linear function of the other), and lambda is kept in [exp(-10), exp(10)].

    lambda and the average are buffers: they are saved with the model, and evaluation leaves them alone.

    Args:
        target: what the mean of log p(x|z) must reach, in nats per example.
        rate: speed of lambda, per nat of C and batch.
        smoothing: share of the past in the average of C, in [0, 1).
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for a `target` that is not finite, a `rate` that is not above 0, a `smoothing` outside [0, 1) or a
            `num_samples` below 1.
    """

    log_lambda: Tensor
    average: Tensor
    batches: Tensor

    def __init__(self, *, target: float, rate: float = 1e-4, smoothing: float = 0.99, num_samples: int = 1) -> None:
        super().__init__()
        if not math.isfinite(target):
            raise ValueError(f"target must be a finite number, but is {target!r}")
        self.target = target
        self.rate = positive("rate", rate)
        self.smoothing = fraction("smoothing", smoothing)
        self.num_samples = positive_int("num_samples", num_samples)
        self.register_buffer("log_lambda", torch.tensor(0.0))
        self.register_buffer("average", torch.tensor(0.0))
        self.register_buffer("batches", torch.tensor(0.0))

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the `lambda` that was in force and the batch's own `constraint`."""
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        constraint = self.target - log_px
        weight = self.log_lambda.exp()
        # The paper's C: the value of the running average, the gradient of this batch.
        smoothed = constraint + (self._observe(constraint) - constraint).detach() if self.training else constraint
        loss = kl + weight * smoothed
        return loss, {**bound_logs(loss, log_px, kl), "lambda": weight, "constraint": constraint.detach()}

    @torch.no_grad()
    def _observe(self, constraint: Tensor) -> Tensor:
        """Takes the constraint of a training batch into the average and lambda, and returns the average."""
        self.average += torch.where(self.batches == 0, 1.0, 1 - self.smoothing) * (constraint - self.average)
        self.batches += 1
        self.log_lambda += self.rate * self.average
        self.log_lambda.clamp_(*LOG_LAMBDA_RANGE)
        return self.average
