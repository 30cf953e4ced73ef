"""Annealed importance sampling: log p(x) without leaning on the encoder, and how far off it may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaelab.checks import one_of, positive_int
from vaelab.distributions.gaussian import diagonal_gaussian
from vaelab.models import VAE, Model
from vaelab.numerics import reuse_memory
from vaelab.samplers.deterministic import PointMass

LogDensity = Callable[[Tensor], Tensor]
Progress = Callable[[Sequence[float]], Iterable[float]]

STARTS = ("posterior", "prior")
STEEPNESS = 4.0  # of the sigmoid that b_t follows, as in the code of Wu et al. 2017
ACCEPTANCE = 0.65  # of Hamiltonian proposals, what the step size aims at (Neal 2011, section 5.4.4.3)
RATE = 0.2  # at which the logarithm of the step size follows the acceptance
PILOTS = 2  # chains of every image that find the step sizes of the others
DRAWS = 200  # of a distribution whose mean and standard deviation have no closed form


def annealed_log_weights(
    start: LogDensity,
    target: LogDensity,
    z: Tensor,
    *,
    scale: Tensor,
    steps: int = 200,
    leapfrogs: int = 10,
    step_sizes: Tensor | None = None,
    progress: Progress = iter,
) -> tuple[Tensor, Tensor]:
    """Returns log importance weights (M, B), float64, of chains that go from one density to another in small steps.

    log w = sum_t (b_t - b_{t-1}) (log target(z_{t-1}) - log start(z_{t-1})), t = 1 ... T, where z_t is drawn by
    Hamiltonian Monte Carlo that leaves start^(1 - b_t) target^b_t invariant, and b_t rises from 0 to 1 along a sigmoid
    (Neal 2001, section 2; Wu et al. 2017, section 2.3). E w is the integral of `target` over that of `start`: neither
    need be normalised, and with both swapped the chains run backwards.

    Deviation from the paper, where every chain adapts its own step size: the first two chains of each problem adapt
    theirs along the way to an acceptance of 65 %, the others take the same, and the two have no weight. No chain that
    counts has steered itself, so that the identity is exact.

    Args:
        start: log density in nats, (P + M, B), of z (P + M, B, ...).
        target: that of the other end.
        z: independent draws from `start`, (P + M, B, ...): P + M chains for each of B problems.
        scale: a length for every dimension, in which step sizes are measured; broadcastable to z.
        steps: T.
        leapfrogs: gradient steps of one proposal.
        step_sizes: (T - 1, B), chosen without looking at z: P is 0. None finds them: P is 2.
        progress: wraps the sequence of b_t, for a progress bar.

    Returns:
        The log weights, and the step size of every move, (T - 1, B).

    Raises:
        ValueError: for a number below 1, or chains that are all needed to find the step sizes.
    """
    positive_int("steps", steps), positive_int("leapfrogs", leapfrogs)
    pilots = PILOTS if step_sizes is None else 0
    if len(z) <= pilots:
        raise ValueError(f"annealing needs more than {pilots} chains, which find the step sizes, but has {len(z)}")
    reuse_memory()

    def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both log densities, (2, M, B), and their gradients, (2, M, B, ...)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            logs = [start(z), target(z)]
            slopes = [torch.autograd.grad(log.sum(), z)[0] for log in logs]
        return torch.stack(logs).detach(), torch.stack(slopes)

    def lift(values: Tensor) -> Tensor:
        """Appends the dimensions of z to values (..., B)."""
        return values.reshape(*values.shape, *(1,) * (z.ndim - 2))

    with torch.no_grad():
        step_size, taken = z.new_full((z.shape[1],), 0.1), z.new_empty(steps - 1, z.shape[1])
        logs, slopes = evaluate(z)
        log_weights = torch.zeros_like(logs[0], dtype=torch.float64)
        for t, (before, now) in enumerate(pairwise(progress(inverse_temperatures(steps)))):
            log_weights += (now - before) * (logs[1] - logs[0]).double()
            if now == 1:
                break  # no weight depends on the last draw
            mix = logs.new_tensor([1 - now, now])
            taken[t] = step_size if step_sizes is None else step_sizes[t]
            stride = lift(taken[t]) * scale
            speed = torch.randn_like(z)
            energy = torch.tensordot(mix, logs, 1) - speed.square().flatten(2).sum(2) / 2
            new_z, new_logs, new_slopes = z, logs, slopes
            for _ in range(leapfrogs):
                speed = speed + stride / 2 * torch.tensordot(mix, new_slopes, 1)
                new_z = new_z + stride * speed
                new_logs, new_slopes = evaluate(new_z)
                speed = speed + stride / 2 * torch.tensordot(mix, new_slopes, 1)
            new_energy = torch.tensordot(mix, new_logs, 1) - speed.square().flatten(2).sum(2) / 2
            chance = (new_energy - energy).exp().clamp(max=1).nan_to_num(0.0)  # refuses proposals that diverged
            accepted = torch.rand_like(chance) < chance
            z = torch.where(lift(accepted), new_z, z)
            logs = torch.where(accepted, new_logs, logs)
            slopes = torch.where(lift(accepted), new_slopes, slopes)
            if pilots:
                step_size = step_size * (RATE * (chance[:pilots].mean(0) - ACCEPTANCE)).exp()
    return log_weights[pilots:], taken


def inverse_temperatures(steps: int) -> list[float]:
    """Returns b_0 = 0 ... b_T = 1 along a sigmoid, slow at both ends (Wu et al. 2017)."""
    ends = torch.tensor([-STEEPNESS, STEEPNESS], dtype=torch.float64).sigmoid()
    curve = torch.linspace(-STEEPNESS, STEEPNESS, steps + 1, dtype=torch.float64).sigmoid()
    inner = ((curve - ends[0]) / (ends[1] - ends[0])).tolist()
    return [0.0, *inner[1:-1], 1.0]


def log_mean(log_weights: Tensor) -> Tensor:
    """Returns log (1/M) sum_m w_m, (B,), of log weights (M, B)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def annealed_weights(
    model: Model,
    x: Tensor,
    context: Tensor | None = None,
    *,
    chains: int = 16,
    steps: int = 200,
    leapfrogs: int = 10,
    start: str = "posterior",
    exact: Tensor | None = None,
    progress: Progress = iter,
) -> Tensor:
    """Returns log weights (M, B), float64, in nats, of annealed importance sampling from q(z|x) or p(z) to p(x, z).

    Every weight is p(x) on average, so that their `log_mean` is at most log p(x) in expectation, and approaches it with
    many steps, whatever the encoder (Wu, Burda, Salakhutdinov & Grosse 2017, "On the quantitative analysis of
    decoder-based generative models"). The start `posterior` is the diagonal Gaussian of the posterior's mean and
    standard deviation: a Gaussian posterior itself, and of any other one a neighbour whose density is known everywhere.

    Args:
        model: a flat VAE with latents in Euclidean space, in evaluation mode.
        x: images (B, C, H, W) in the data's own range, on the model's device.
        context: what a conditional model is given, (B, ...).
        chains: M, of every image, beside two that find the step sizes; those of all images are decoded at once.
        steps: T, from one distribution to the next.
        leapfrogs: gradient steps of one proposal.
        start: posterior or prior.
        exact: draws of p(z|x), (B, ...), known of simulated images only: from them M more chains run backwards, by the
            same step sizes, and their weights, of mean 1 / p(x), come second: (2, M, B).
        progress: wraps the sequence of inverse temperatures, for a progress bar.

    Raises:
        ValueError: for a number below 1, an unknown start, or a model in which there is no such path.
    """
    positive_int("chains", chains), one_of("start", start, STARTS)
    vae = flat(model)
    copies = PILOTS + chains
    images = x.repeat(copies, *(1,) * (x.ndim - 1))
    given = None if context is None else context.repeat(copies, *(1,) * (context.ndim - 1))
    with torch.no_grad():
        prior = vae.prior()
        origin = prior if start == "prior" else gaussian_like(vae.encode(x, context))
        draws = origin.sample((DRAWS,))
        z = origin.sample((copies, len(x))[: 2 - len(origin.batch_shape)])  # (P + M, B, *latent_shape)

    def joint(z: Tensor) -> Tensor:
        """Returns log p(x, z), (M, B)."""
        rows = z.flatten(0, 1)
        p_x = vae.p_x(rows, None if given is None else given[: len(rows)])
        return prior.log_prob(z) + p_x.log_prob(images[: len(rows)]).view(z.shape[:2])

    options: dict[str, Any] = {"scale": draws.std(0), "steps": steps, "leapfrogs": leapfrogs, "progress": progress}
    there, step_sizes = annealed_log_weights(origin.log_prob, joint, z, **options)
    if exact is None:
        return there
    z = exact.expand(chains, *exact.shape)
    back, _ = annealed_log_weights(joint, origin.log_prob, z, step_sizes=step_sizes.flip(0), **options)
    return torch.stack([there, back])


def bidirectional_bounds(
    model: Model, num_images: int, context: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Returns bounds in expectation from below and above on log p(x) of images drawn from the model, (B,), in nats.

    Of a simulated pair (z, x) the latent is an exact draw of p(z|x), so that chains can run backwards from it, too, and
    -log (1/M) sum_m w_m of those bounds log p(x) from above (Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal
    likelihood using bidirectional Monte Carlo"). The mean gap bounds the error of annealing on images like the model's.

    Args:
        model: a flat VAE with latents in Euclidean space, in evaluation mode.
        num_images: B.
        context: what a conditional model is given, (B, ...).
        options: chains, steps, leapfrogs, start and progress of `annealed_weights`.

    Raises:
        ValueError: as `annealed_weights`.
    """
    vae = flat(model)
    with torch.no_grad():
        z = vae.draw_latents(positive_int("num_images", num_images), context)
        x = vae.p_x(z, context).sample()
    there, back = annealed_weights(vae, x, context, exact=z, **options)
    return log_mean(there), -log_mean(back)


def flat(model: Model) -> VAE:
    """Returns the model if z is one vector or map in Euclidean space.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(model, VAE):
        raise ValueError(f"annealing needs one group of continuous latents, but a {type(model).__name__} has others")
    if model.sampler.space != "Euclidean space":
        raise ValueError(
            f"annealing needs latents in Euclidean space, but those of this model lie on {model.sampler.space}"
        )
    return model


def gaussian_like(q: Distribution) -> Distribution:
    """Returns the diagonal Gaussian of q's mean and standard deviation; q itself if it is one.

    Raises:
        ValueError: for a deterministic code.
    """
    if isinstance(q, PointMass):
        raise ValueError("a deterministic code has no density to start from; choose annealing.start=prior")
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return q
    draws = q.sample((DRAWS,))
    return diagonal_gaussian(draws.mean(0), draws.std(0), len(q.event_shape))
