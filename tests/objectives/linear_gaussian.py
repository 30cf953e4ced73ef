"""A linear-Gaussian model with a copy of its parameters for every example, so that one backward pass gives many
independent estimates of one gradient; everything in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaelab.models import Latent, Terms

LATENT, DATA = 2, 3
NOISE = torch.tensor(0.7, dtype=torch.float64)
X = torch.tensor([0.9, -1.4, 0.5], dtype=torch.float64)
# Orthogonal columns: the true posterior factorises, and a diagonal Gaussian can be it.
WEIGHT = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.8, 0.0]], dtype=torch.float64)
BIAS = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)


def standard_normal(latent: int = LATENT) -> Independent:
    return Independent(Normal(torch.zeros(latent).double(), torch.ones(latent).double()), 1)


def log_evidence(x: Tensor = X) -> Tensor:
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(DATA)
    return MultivariateNormal(BIAS, covariance).log_prob(x)


def true_posterior(x: Tensor = X) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of p(z|x), (D,) each."""
    covariance = torch.linalg.inv(torch.eye(LATENT) + WEIGHT.T @ WEIGHT / NOISE**2)
    return covariance @ WEIGHT.T @ (x - BIAS) / NOISE**2, covariance.diagonal().sqrt()


@dataclass
class Replicas:
    """B copies of one image x, each with its own parameters of q (mean, log_std) and of p(x|z) (bias)."""

    mean: Tensor  # (B, LATENT)
    log_std: Tensor  # (B, LATENT)
    bias: Tensor  # (B, DATA)
    prior: Distribution

    def terms(self, draws: int) -> Terms:
        q = Independent(Normal(self.mean, self.log_std.exp()), 1)
        z = q.rsample((draws,))
        log_px = Independent(Normal(z @ WEIGHT.T + self.bias, NOISE), 1).log_prob(X)
        return Terms(log_px=log_px, latents=(Latent(z=z, q=q, p=self.prior),))

    @property
    def encoder(self) -> list[Tensor]:
        return [self.mean, self.log_std]

    @property
    def parameters(self) -> list[Tensor]:
        return [self.mean, self.log_std, self.bias]

    def gradients(self, loss: Tensor, parameters: list[Tensor]) -> Tensor:
        """Returns the gradient of every copy's own loss, (B, numbers): the loss is a mean over B."""
        return torch.cat(torch.autograd.grad(loss, parameters), 1) * len(self.mean)


def replicas(batch: int, *, exact: bool = False, prior: Distribution | None = None) -> Replicas:
    """A posterior that is off and wider than the true one (or, if `exact`, is it), `batch` times."""
    mean, std = true_posterior()
    if not exact:
        mean, std = mean + torch.tensor([0.4, -0.3]), std * torch.tensor([1.3, 1.2])
    leaves = [value.expand(batch, -1).clone().requires_grad_() for value in (mean, std.log(), BIAS)]
    return Replicas(*leaves, prior=prior or standard_normal())


def z_scores(differences: Tensor) -> Tensor:
    """Returns how many standard errors the mean of every column of (B, numbers) is from 0."""
    return differences.mean(0) / (differences.std(0) / len(differences) ** 0.5)
