"""Models whose answers are known, and what they are judged on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaelab.data import Images
from vaelab.evaluation import Figure, Subject
from vaelab.likelihoods import BernoulliLikelihood
from vaelab.likelihoods.base import Likelihood
from vaelab.models import Latent, Model, Terms
from vaelab.samplers.deterministic import Delta

Answer = Callable[[Tensor], Tensor]


class Oracle(Model):
    """A model of which everything is given: what it reconstructs, how probable it finds x, what it draws.

    Args:
        x_shape: data shape (C, H, W).
        clean: x -> E[x|z] at the posterior mean.
        log_px: x -> log p(x|z), (B,); the KL is `kl`.
        draws: (N) -> N samples.
        kl: of the posterior, in nats; None for a deterministic code.
    """

    def __init__(
        self,
        x_shape: tuple[int, int, int] = (1, 8, 8),
        *,
        clean: Answer = lambda x: x,
        log_px: Answer | None = None,
        draws: Callable[[int], Tensor] | None = None,
        kl: float | None = 0.5,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__(x_shape=x_shape, latent_shape=(1,), likelihood=likelihood or BernoulliLikelihood())
        self.clean, self.draws, self.kl = clean, draws, kl
        self.log_px = log_px or (lambda x: -(x - clean(x)).square().flatten(1).sum(1))

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        zeros = torch.zeros(num_samples, len(x), 1)
        if self.kl is None:
            q: Distribution = Delta(zeros[0], 1)
        else:  # KL(N(m, 1) || N(0, 1)) = m^2 / 2
            q = Independent(Normal(torch.full((len(x), 1), (2 * self.kl) ** 0.5), 1.0), 1)
        p = Independent(Normal(torch.zeros(1), 1.0), 1)
        return Terms(log_px=self.log_px(x).expand(num_samples, -1), latents=(Latent(z=zeros, q=q, p=p),), model=self)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        return Delta(torch.zeros(len(x), 1), 1)

    def p_x(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return Independent(Normal(torch.zeros(len(z), *self.x_shape), 1.0), 3)

    def reconstruct(self, x: Tensor, context: Tensor | None = None, *, batch_size: int = 1000) -> Tensor:
        return self.clean(self._as_data(x))

    def sample(self, num_samples: int, context: Tensor | None = None, **options: Any) -> Tensor:
        if self.draws is None:
            raise ValueError("this prior cannot be drawn from")
        return self.draws(num_samples)


def shapes(number: int, seed: int, classes: int = 3, side: int = 8) -> Images:
    """Grey images of a bright row, column or diagonal on a dark noisy ground: classes 0, 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(60, (number, 1, side, side), generator=generator, dtype=torch.uint8)
    y = torch.arange(number) % classes
    where = torch.randint(side, (number,), generator=generator)
    i = torch.arange(side)
    for image, label, j in zip(x[:, 0], y.tolist(), where.tolist(), strict=True):
        rows, columns = ((j, i), (i, j), (i, (i + j) % side))[label]
        image[rows, columns] = 220
    return Images(x=x, y=y)


def subject(model: Model, folder: Path, **options: Any) -> Subject:
    """The model with 120 training and 90 test images of `shapes`."""
    splits = {"train": shapes(120, 0), "val": shapes(30, 1), "test": shapes(90, 2)}
    defaults = {"splits": splits, "split": "test", "limit": None, "support": "levels", "protocol": {}}
    return Subject(model=model.eval(), folder=folder, **{**defaults, **options})


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    assert len({figure.name for figure in figures}) == len(figures)
    return {figure.name: figure for figure in figures}
