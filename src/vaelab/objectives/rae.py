"""Regularised autoencoders: a plain autoencoder whose decoder is kept smooth instead of its code noisy."""

from __future__ import annotations

import torch
from torch import Tensor

from vaelab.checks import at_least_zero, one_of
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.objectives.estimators import only_latent

REGULARIZERS = ("none", "l2", "gradient_penalty")


class RAE(Objective):
    """loss = mean_B,K [ -log p(x|z) + beta * |z|^2 / 2 ] + weight * R(decoder) (Ghosh et al. 2020, section 3).

    R is |theta|^2, the sum of the squared parameters of the decoder (`l2`); or the mean over the batch of |J(z)|_F^2,
    the squared norm of the derivative of the mean image by z (`gradient_penalty`), estimated without bias by one random
    projection, E|J^T v|^2 with v ~ N(0, I). RAE-SN takes `none` and model.spectral_norm=true. -log p(x|z) is the
    squared error, up to a constant, for a Gaussian of fixed sigma.

    Such a model has no density of z to draw from: fit one to its codes when it is trained, with `refit`. A gradient
    penalty needs a graph; validation and test leave it out of their `loss`.

    Args:
        beta: weight of the code's norm.
        regularizer: R: none, l2 or gradient_penalty.
        weight: of R.

    Raises:
        ValueError: for a negative weight or an unknown `regularizer`; when called, for a hierarchy, or terms without
            their model.
    """

    def __init__(self, *, beta: float = 1e-2, regularizer: str = "l2", weight: float = 1e-4) -> None:
        super().__init__()
        self.beta = at_least_zero("beta", beta)
        self.regularizer = one_of("regularizer", regularizer, REGULARIZERS)
        self.compiles = regularizer != "gradient_penalty"
        self.weight = at_least_zero("weight", weight)

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with `code_norm`, |z|^2 / 2, and the regulariser without its weight."""
        z = only_latent(terms, "a regularised autoencoder").z
        log_px = terms.log_px.mean()
        code_norm = z.flatten(2).square().sum(-1).mean() / 2
        loss = self.beta * code_norm - log_px
        logs = {"code_norm": code_norm.detach()}
        if self.regularizer == "l2":
            regularizer = decoder_norm(terms)
        elif self.regularizer == "gradient_penalty" and torch.is_grad_enabled():
            regularizer = gradient_norm(terms, z)
        else:
            return loss, {**bound_logs(loss, log_px, terms.kl.mean()), **logs}
        loss = loss + self.weight * regularizer
        return loss, {**bound_logs(loss, log_px, terms.kl.mean()), **logs, self.regularizer: regularizer.detach()}


def decoder_norm(terms: Terms) -> Tensor:
    """Returns the sum of the squared parameters of the decoder, ()."""
    decoder = terms.source.parts()["decoder"]
    return torch.stack([p.square().sum() for part in decoder for p in part.parameters()]).sum()


def gradient_norm(terms: Terms, z: Tensor) -> Tensor:
    """Returns the mean over draws and examples of |dE[x|z] / dz|_F^2, in one random projection, ()."""
    x_mean = terms.x_mean
    (pulled,) = torch.autograd.grad(x_mean, z, torch.randn_like(x_mean), create_graph=True)
    return pulled.flatten(2).square().sum(-1).mean()
