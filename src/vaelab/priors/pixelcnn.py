"""Autoregressive prior over a latent map (van den Oord, Vinyals & Kavukcuoglu 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Normal
from torch.nn.functional import cross_entropy

from vaelab.checks import positive_int
from vaelab.distributions import Codebook, Coded
from vaelab.distributions.autoregressive import Autoregressive, RasterNetwork
from vaelab.numerics import at_least_float32
from vaelab.priors.base import Prior

# Wide enough never to bind on a healthy run: no collapse on one point, no overflow.
LOG_STD_RANGE = (-10.0, 10.0)


class PixelCNNPrior(Prior):
    """p(z) = prod_i p(z_i | z_<i) over the positions i of a latent map in raster order, by a PixelCNN.

    For a sampler with a codebook z_i stands for Q codes of K, and p(c_i | c_<i) = prod_q Cat(c_iq | c_<i, c_i,<q). No
    gradient reaches the codebook through codes, so that this prior may be trained with the model (the ELBO is then a
    true bound) or after it (van den Oord, Vinyals & Kavukcuoglu 2017, section 3.3). For other samplers
    p(z_i | z_<i) = N(mu(z_<i), diag sigma(z_<i)^2): the D channels of one position are independent given those before.

    Scoring takes one pass of the network, drawing one for every position. KLs are estimated by log q(z|x) - log p(z).

    Args:
        latent_shape: (D, h, w).
        network: builds a network with `in_channels` and `out_channels`: see `vaelab.distributions.autoregressive`.
        width: width of the embedding of codes, and of the layer in front of their logits.

    Raises:
        ValueError: for latent vectors or a `width` below 1; when called, if the prior does not belong to a model.
    """

    space = None
    conditionals: GaussianMap | CodeMap

    def __init__(self, *, latent_shape: Sequence[int], network: Callable[..., RasterNetwork], width: int = 64) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        if len(self.latent_shape) != 3:
            raise ValueError(
                f"PixelCNNPrior needs latents that are a map (D, h, w), but they are {self.latent_shape}; "
                "choose network=conv model.latent_map=true"
            )
        self.network, self.width = network, positive_int("width", width)
        self._codebook: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = None

    def attach(
        self, posterior: Callable[[Tensor], Distribution], x_shape: Sequence[int], sampler: nn.Module | None = None
    ) -> None:
        """Makes the network, for codes if there is a codebook (which stays the sampler's own), else for real z."""
        if isinstance(sampler, Codebook):
            self._codebook = sampler.codes, sampler.embed
            self.conditionals = CodeMap(sampler.num_codes, sampler.code_shape, self.network, self.width)
        else:
            self.conditionals = GaussianMap(self.latent_shape, self.network)

    def check_space(self, space: str, remedy: str) -> None:
        """Raises a ValueError that names the `remedy` unless z is real, or from a codebook."""
        if space not in ("Euclidean space", "a codebook"):
            raise ValueError(
                f"PixelCNNPrior is a prior on Euclidean space or a codebook, but the sampler draws z on {space}; "
                f"choose {remedy}"
            )

    def forward(self) -> Distribution:
        """Returns p(z), of event shape `latent_shape`."""
        if "conditionals" not in self._modules:
            raise ValueError("a PixelCNNPrior is made for its model's latents; call attach(posterior, x_shape) first")
        if isinstance(self.conditionals, GaussianMap):
            return Autoregressive(self.conditionals, self.latent_shape)
        assert self._codebook is not None
        return Coded(Autoregressive(self.conditionals, self.conditionals.shape), *self._codebook, self.latent_shape)


class GaussianMap(nn.Module):
    """p(z_i | z_<i) = N(mu(z_<i), diag sigma(z_<i)^2).

    Args:
        shape: of z, (D, h, w).
        network: builds a network with `in_channels` and `out_channels`.
    """

    def __init__(self, shape: Sequence[int], network: Callable[..., RasterNetwork]) -> None:
        super().__init__()
        self.channels, *self.size = shape
        self.network = network(in_channels=self.channels, out_channels=2 * self.channels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(z) in nats, (N,), for z (N, D, h, w)."""
        seen = value.to(next(self.network.parameters()).dtype)  # which may have half the precision
        return self._normal(self.network(seen)).log_prob(value).flatten(1).sum(1)

    def draw(self, count: int) -> Tensor:
        """Draws z, (count, D, h, w)."""
        z = self.network.generate(lambda params, row, column: self._normal(params).sample(), (count, *self.size))
        return at_least_float32(z)

    def _normal(self, params: Tensor) -> Normal:
        mean, log_std = at_least_float32(params).chunk(2, 1)
        return Normal(mean, log_std.clamp(*LOG_STD_RANGE).exp(), validate_args=False)


class CodeMap(nn.Module):
    """P(c_iq | c_<i, c_i,<q) = Cat(softmax(l_q)), l_q = linear_q(relu(f_q(c_<i) + linear(sum_r<q e(c_ir)))).

    f is the network, which sees the sum of the embeddings e of every position's codes.

    Args:
        num_codes: K.
        shape: of the codes, (Q, h, w).
        network: builds a network with `in_channels` and `out_channels`.
        width: of e and f_q.
    """

    def __init__(self, num_codes: int, shape: Sequence[int], network: Callable[..., RasterNetwork], width: int) -> None:
        super().__init__()
        self.num_codes, self.shape, self.width = num_codes, tuple(shape), width
        self.depth = shape[0]
        self.embedding = nn.Embedding(self.depth * num_codes, width)
        self.network = network(in_channels=width, out_channels=self.depth * width)
        self.before = nn.Linear(width, width) if self.depth > 1 else None
        self.heads = nn.ModuleList(nn.Linear(width, num_codes) for _ in range(self.depth))

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log P(c) in nats, (N,), for codes c (N, Q, h, w)."""
        embedded = torch.stack([self._embed(codes, q) for q, codes in enumerate(value.unbind(1))], 1)  # (N, Q, h, w, E)
        summed = embedded.sum(1).movedim(-1, 1).contiguous()  # (N, E, h, w)
        features = self.network(summed).unflatten(1, (self.depth, self.width)).movedim(2, -1)
        before = torch.cat([torch.zeros_like(embedded[:, :1]), embedded[:, :-1].cumsum(1)], 1)
        logits = [self._logits(features[:, q], before[:, q], q) for q in range(self.depth)]  # of (N, h, w, K)
        nats = [
            cross_entropy(at_least_float32(r).movedim(-1, 1), value[:, q], reduction="none")
            for q, r in enumerate(logits)
        ]
        return -torch.stack(nats, 1).flatten(1).sum(1)

    def draw(self, count: int) -> Tensor:
        """Draws codes, (count, Q, h, w)."""
        codes = self.embedding.weight.new_zeros((count, *self.shape), dtype=torch.long)

        def draw(features: Tensor, row: int, column: int) -> Tensor:
            features = features.reshape(count, self.depth, self.width)
            before = torch.zeros_like(features[:, 0])
            for q in range(self.depth):
                logits = at_least_float32(self._logits(features[:, q], before, q))
                codes[:, q, row, column] = Categorical(logits=logits, validate_args=False).sample()
                before = before + self._embed(codes[:, q, row, column], q)
            return before[:, :, None, None]

        self.network.generate(draw, (count, *self.shape[1:]))
        return codes

    def _embed(self, codes: Tensor, q: int) -> Tensor:
        return self.embedding(codes + q * self.num_codes)

    def _logits(self, features: Tensor, before: Tensor, q: int) -> Tensor:
        hidden = features if self.before is None else features + self.before(before)
        return self.heads[q](hidden.relu())
