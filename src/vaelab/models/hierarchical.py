"""Maps in many groups: p(z_1) prod_i p(z_i|z_<i) p(x|z), all of one top-down path, and q(z_i|z_<i, x) along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod, sqrt
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaelab.checks import at_least_zero, image_shape, positive, positive_int
from vaelab.distributions import Flow
from vaelab.distributions.flow import coupling_layers
from vaelab.distributions.gaussian import diagonal_gaussian, unflatten_batch
from vaelab.likelihoods import Likelihood
from vaelab.models.base import Model
from vaelab.models.terms import Latent, Terms
from vaelab.networks import Condition
from vaelab.networks.condition import joined
from vaelab.networks.resnet import Resize
from vaelab.numerics import at_least_float32
from vaelab.samplers.gaussian import LOG_STD_RANGE

Size = tuple[int, int]
Draw = Callable[[Distribution], Tensor]


class Bottleneck(nn.Sequential):
    """Four convolutions of pre-activated maps: 1x1 to `inner` channels, two of `kernel`, 1x1 to `c_out` channels.

    Args:
        c_in: channels of the input.
        inner: channels in the middle.
        c_out: channels of the output.
        kernel: size of the two middle convolutions.
        scale: of the last convolution's weights at the start, relative to the usual; 0 makes the output constant.
    """

    def __init__(self, c_in: int, inner: int, c_out: int, *, kernel: int, scale: float = 1.0) -> None:
        layers: list[nn.Module] = []
        for a, b, k in ((c_in, inner, 1), (inner, inner, kernel), (inner, inner, kernel), (inner, c_out, 1)):
            layers += [nn.GELU(), nn.Conv2d(a, b, k, padding=k // 2)]
        super().__init__(*layers)
        rescale(layers[-1], scale)


class Residual(nn.Module):
    """h + f(h)."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, h: Tensor) -> Tensor:
        """Maps (B, c, h, w) to the same shape."""
        return h + self.f(h)


class TopDownBlock(nn.Module):
    """One latent group: prior and posterior given the state h of the path, and what the draw adds to the state.

    p(z|h) = N(mu_p, sigma_p^2) and r come from one network of h; q(z|h, x) = N(mu_q, sigma_q^2) from one of h and the
    activations of x; then h <- h + r + W z, and a residual network of it.

    Args:
        channels: of the state and of the activations.
        inner: channels inside the networks.
        latent_channels: of z.
        kernel: of their middle convolutions.
        scale: of the last layers of the residual network and of W at the start.
        residual_posterior: whether the posterior network emits mu_q - mu_p and log(sigma_q / sigma_p).
        flow_steps: affine coupling layers, the same for all x, that the draw of the posterior goes through.
        size: height and width of the state.
    """

    def __init__(
        self,
        *,
        channels: int,
        inner: int,
        latent_channels: int,
        kernel: int,
        scale: float,
        residual_posterior: bool,
        flow_steps: int = 0,
        size: Size = (1, 1),
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.residual_posterior = residual_posterior
        self.prior_net = Bottleneck(channels, inner, 2 * latent_channels + channels, kernel=kernel, scale=0.0)
        self.posterior_net = Bottleneck(2 * channels, inner, 2 * latent_channels, kernel=kernel)
        self.z_in = nn.Conv2d(latent_channels, channels, 1)
        rescale(self.z_in, scale)
        self.residual = Residual(Bottleneck(channels, inner, channels, kernel=kernel, scale=scale))
        features = latent_channels * prod(size)
        self.flow = (
            coupling_layers(features, context=0, kind="affine", steps=flow_steps, hidden=[2 * inner], bins=1)
            if flow_steps
            else None
        )

    def prior(self, h: Tensor) -> tuple[Independent, Tensor]:
        """Returns p(z|h) of batch shape (B,), and h + r, for h (B, channels, height, width)."""
        params = self.prior_net(h)
        mean, log_std, r = params.split([self.latent_channels] * 2 + [h.shape[1]], 1)
        return gaussian_map(mean, log_std), h + r

    def posterior(self, h: Tensor, activations: Tensor, p: Independent) -> Distribution:
        """Returns q(z|h, x) of batch shape (B,), for the state h, the `activations` of x and the prior p(z|h)."""
        mean, log_std = self.posterior_net(torch.cat([h, activations], 1)).chunk(2, 1)
        if self.residual_posterior:
            mean, log_std = p.mean + mean, p.stddev.log() + log_std
        q = gaussian_map(mean, log_std)
        if self.flow is None:
            return q
        base = diagonal_gaussian(q.mean.flatten(1), q.stddev.flatten(1), 1)
        return Flow(base, [step() for step in self.flow], q.event_shape)

    def take(self, h: Tensor, z: Tensor) -> Tensor:
        """Returns the state behind the block, for z (B, latent_channels, height, width)."""
        return self.residual(h + self.z_in(z.to(self.z_in.weight.dtype)))


class Start(nn.Module):
    """The state at the top: a learned map (channels, height, width), shifted by a linear function of the context."""

    def __init__(self, shape: Sequence[int], context_dim: int) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.zeros(*shape))
        self.shift = nn.Linear(context_dim, shape[0], bias=False) if context_dim else None

    def forward(self, rows: int, c: Tensor | None) -> Tensor:
        """Returns the state (rows, channels, height, width), given vectors c (rows, context_dim)."""
        state = self.map.expand(rows, *self.map.shape)
        return state if self.shift is None or c is None else state + self.shift(c)[:, :, None, None]


class HierarchicalVAE(Model):
    """A deep hierarchy of latent maps along one top-down path (Child 2021, "Very deep VAEs"; Vahdat & Kautz 2020).

    On the way up residual convolutions, halving height and width (rounded down) from stage to stage, leave their
    activations at every size. On the way down a state h starts as a learned map at the smallest size, goes through the
    top-down blocks, is un-pooled from stage to stage and ends in the parameters of the likelihood:

        log p(x, z) = sum_i log p(z_i|z_<i) + log p(x|z),  q(z|x) = prod_i q(z_i|z_<i, x),

    so that ELBO, free bits by group and importance weights are the usual ones over many groups. `Terms.latents` go from
    the top group to the lowest. What `encode` and `decode` call z is the top group; the groups below are at the means
    of their priors. A `condition` is appended to what goes up and shifts the start of the way down: it reaches all
    priors, as well as the likelihood.

    What keeps deep hierarchies stable (Child 2021, section 3): the last layers of residual networks, and W, start
    scaled by 1/sqrt(number of blocks), the priors' networks at 0, so that every p(z_i) starts as N(0, 1) and every
    state as what it was. The paper also skips updates of huge gradients; here trainer.gradient_clip_val bounds them.
    Deviations: one width at all sizes, un-pooling without a bias of its own, a 3x3 convolution in front; flows in the
    posterior are coupling layers, where NVAE has inverse autoregressive ones. Not offered: NVAE's spectral
    regularisation, which would undo the start above.

    Args:
        x_shape: data shape (C, H, W).
        likelihood: p(x|z).
        blocks: latent groups at every size, from the data's size to the top; 0 for a size without latents.
        channels: of all states.
        latent_channels: of every latent map.
        bottleneck: channels inside the blocks' networks, as a share of `channels`.
        residual_posterior: whether posteriors are relative to the priors (Vahdat & Kautz 2020, section 3.2).
        posterior_flow: coupling layers that every group's draw goes through, the same for all x; 0 for none. The KL
            is then estimated by log q - log p of the draw.
        encoder: None: this model has networks of its own. The entry is there for `network=...` to compose.
        decoder: None, likewise.
        condition: turns a context into a vector; None for none.
        mean: what is subtracted before the way up, one number per channel.
        std: what the difference is divided by, one number per channel.

    Raises:
        ValueError: for a value outside its range, or an image too small for so many sizes.
    """

    def __init__(
        self,
        *,
        x_shape: Sequence[int],
        likelihood: Likelihood,
        blocks: Sequence[int] = (1, 1, 1),
        channels: int = 32,
        latent_channels: int = 4,
        bottleneck: float = 0.5,
        residual_posterior: bool = False,
        posterior_flow: int = 0,
        encoder: None = None,
        decoder: None = None,
        condition: Condition | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        data_channels, height, width = image_shape("x_shape", x_shape)
        check_blocks(blocks, (height, width))
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            if network is not None:
                raise ValueError(
                    f"{name} must be null, because this model has networks of its own; choose blocks and channels"
                )
        sizes = [(height >> i, width >> i) for i in range(len(blocks))]
        positive_int("channels", channels), positive_int("latent_channels", latent_channels)
        super().__init__(
            x_shape=x_shape,
            latent_shape=(latent_channels, *sizes[-1]),
            likelihood=likelihood,
            condition=condition,
            mean=mean,
            std=std,
        )
        inner = max(1, round(positive("bottleneck", bottleneck) * channels))
        at_least_zero("posterior_flow", posterior_flow)
        scale = 1 / sqrt(sum(blocks))
        self.first = nn.Conv2d(data_channels + self.condition.dim, channels, 3, padding=1)
        self.up = nn.ModuleList(
            nn.Sequential(
                *(Residual(Bottleneck(channels, inner, channels, kernel=kernel(s), scale=scale)) for _ in range(n))
            )
            for n, s in zip(blocks, sizes, strict=True)
        )
        self.down = nn.ModuleList(
            nn.ModuleList(
                TopDownBlock(
                    channels=channels,
                    inner=inner,
                    latent_channels=latent_channels,
                    kernel=kernel(s),
                    scale=scale,
                    residual_posterior=residual_posterior,
                    flow_steps=posterior_flow,
                    size=s,
                )
                for _ in range(n)
            )
            for n, s in zip(blocks, sizes, strict=True)
        )
        self.resize = nn.ModuleList(Resize(s) for s in sizes)
        self.start = Start((channels, *sizes[-1]), self.condition.dim)
        self.last = nn.Conv2d(channels, data_channels * likelihood.params_per_channel, 3, padding=1)

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Returns the submodules by part; a block's networks count as encoder (posterior), prior and decoder."""
        blocks = [block for stage in self._stages() for block in stage]
        return {
            "encoder": (self.first, self.up, *(block.posterior_net for block in blocks)),
            "decoder": (
                self.start,
                *(part for block in blocks for part in (block.z_in, block.residual)),
                self.last,
                self.likelihood,
            ),
            "prior": tuple(block.prior_net for block in blocks),
            "condition": (self.condition,),
        }

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        """Returns the terms of the ELBO of x (B, C, H, W) for `num_samples` = K draws of all groups.

        Raises:
            ValueError: for a `num_samples` below 1, or a conditional model without its context.
        """
        positive_int("num_samples", num_samples)
        c = self.condition(context)
        shape = (num_samples, len(x))
        activations = [a.expand(num_samples, *a.shape).flatten(0, 1) for a in self._activations(x, c)]
        repeated = None if c is None else c.expand(num_samples, *c.shape).flatten(0, 1)
        state = self.start(num_samples * len(x), repeated)
        params, latents = self._descend(state, lambda q: q.rsample(), activations=activations)
        params = params.unflatten(0, shape)
        return Terms(
            log_px=self.likelihood.log_prob(params, x),
            latents=tuple(
                Latent(z=g.z.unflatten(0, shape), q=unflatten_batch(g.q, shape), p=unflatten_batch(g.p, shape))
                for g in latents
            ),
            x=x,
            context=context,
            params=params,
            model=self,
        )

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns the posterior of the top group given x (B, C, H, W): batch shape (B,), event shape `latent_shape`."""
        c = self.condition(context)
        state = self.start(len(x), c)
        return self.top.posterior(state, self._activations(self._as_data(x), c)[-1], self.top.prior(state)[0])

    def p_x(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns p(x|z) with the groups below the top group z (B, *latent_shape) at the means of their priors.

        Raises:
            ValueError: for latents of another shape.
        """
        return self._p_x_below(z, context, lambda p: p.mean)

    def draw_latents(self, num_samples: int, context: Tensor | None = None) -> Tensor:
        """Draws the top group from its prior, (num_samples, *latent_shape)."""
        p, _ = self.top.prior(self.start(num_samples, self.condition(context)))
        return p.sample()

    @property
    def top(self) -> TopDownBlock:
        """The block of the top group."""
        return self._stages()[-1][0]

    def _stages(self) -> list[Sequence[TopDownBlock]]:
        """Returns the blocks at every size, the data's first."""
        return cast("list[Sequence[TopDownBlock]]", list(self.down))

    def _p_x_of_draw(self, z: Tensor, context: Tensor | None) -> Distribution:
        return self._p_x_below(z, context, lambda p: p.sample())

    def _p_x_below(self, z: Tensor, context: Tensor | None, draw: Draw) -> Distribution:
        z = self._as_latents(z)
        params, _ = self._descend(self.start(len(z), self.condition(context)), draw, top=z)
        return self.likelihood(params)

    def _reconstruction(self, x: Tensor, context: Tensor | None) -> Tensor:
        c = self.condition(context)
        params, _ = self._descend(self.start(len(x), c), lambda q: q.mean, activations=self._activations(x, c))
        return self.likelihood(params).mean

    def _activations(self, x: Tensor, c: Tensor | None) -> list[Tensor]:
        """Returns the activations of x (B, C, H, W) at every size, the data's first."""
        x = self._seen_by_encoder(x)
        h = self.first(x if c is None else joined(x, c))
        activations: list[Tensor] = []
        for stage, resize in zip(self.up, self.resize, strict=True):
            if activations:
                h = resize(h)
            h = stage(h)
            activations.append(h)
        return activations

    def _descend(
        self, h: Tensor, draw: Draw, *, activations: Sequence[Tensor] | None = None, top: Tensor | None = None
    ) -> tuple[Tensor, list[Latent]]:
        """Goes from the state h (B, channels, height, width) at the top down to the parameters of the likelihood.

        Args:
            h: the state.
            draw: takes z from its posterior, or from its prior without activations.
            activations: of x, at every size.
            top: the top group's z, if it is known.
        """
        latents: list[Latent] = []
        stages = self._stages()
        for i in reversed(range(len(stages))):
            if i < len(stages) - 1:
                h = self.resize[i](h)
            for block in stages[i]:
                p, state = block.prior(h)
                q = p if activations is None else block.posterior(h, activations[i], p)
                z = draw(q) if top is None or latents else top
                latents.append(Latent(z=z, q=q, p=p))
                h = block.take(state, z)
        return self.last(h), latents


def gaussian_map(mean: Tensor, log_std: Tensor) -> Independent:
    """Returns N(mean, diag exp(2 log_std)) over maps (B, c, height, width)."""
    std = at_least_float32(log_std).clamp(*LOG_STD_RANGE).exp()
    return diagonal_gaussian(at_least_float32(mean), std, 3)


def rescale(conv: nn.Module, scale: float) -> None:
    """Multiplies the weights of a convolution by `scale` and sets its biases to 0."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.mul_(scale)
        conv.bias.zero_()


def kernel(size: Size) -> int:
    """Returns the kernel for maps of `size`: 3, and 1 where a 3x3 convolution would see padding for the most part."""
    return 3 if min(size) > 2 else 1


def check_blocks(blocks: Sequence[int], size: Size) -> None:
    """Raises a ValueError unless `blocks` counts the groups at sizes that an image of `size` can be halved to."""
    if not blocks or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in blocks) or blocks[-1] < 1:
        raise ValueError(
            "blocks must be whole numbers of at least 0, the last of at least 1, from the data's size to the top, for "
            f"example blocks=[1,1,1], but is {list(blocks)}"
        )
    if min(size) >> (len(blocks) - 1) < 1:
        raise ValueError(
            f"blocks must have at most {min(size).bit_length()} entries for images of {size[0]}x{size[1]}, which are "
            f"halved between them, but is {list(blocks)}"
        )
