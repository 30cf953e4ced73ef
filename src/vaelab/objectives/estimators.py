"""The importance-weighted bounds, and the estimators of their gradient."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.models.terms import Latent, Terms, sum_groups
from vaelab.samplers import Delta, Quantized

ESTIMATORS = ("standard", "stl", "dreg")
PLAIN = (bool, int, float, str, torch.Size, type(None))


def only_latent(terms: Terms, wanted_by: str) -> Latent:
    """Returns the latent group of a flat model.

    Args:
        terms: of the model.
        wanted_by: what needs a flat model, for the message.

    Raises:
        ValueError: for a hierarchy.
    """
    if len(terms.latents) != 1:
        raise ValueError(
            f"{wanted_by} needs a model with one latent group, but this one has {len(terms.latents)}; choose a flat "
            "one (model=vae)"
        )
    return terms.latents[0]


def detached(q: Distribution) -> Distribution:
    """Returns q with its parameters cut out of the gradient: its log q(z) differentiates by z alone.

    Raises:
        ValueError: for a distribution that holds more than tensors and distributions, as a flow does.
    """
    cut = copy.copy(q)
    for name, value in vars(q).items():
        if isinstance(value, Distribution):
            vars(cut)[name] = detached(value)
        elif isinstance(value, Tensor):
            vars(cut)[name] = value.detach()
        elif not isinstance(value, PLAIN):
            raise ValueError(
                f"estimator must be standard for a {type(q).__name__} posterior: its {name} is no tensor, so that the "
                "gradient cannot be stopped there"
            )
    return cut


def log_ratio(terms: Terms, estimator: str) -> Tensor:
    """Returns log p(z) - log q(z|x) in nats, (K, B); for `stl` and `dreg` the parameters of q in it are held fixed.

    This is "sticking the landing" (Roeder, Wu & Duvenaud 2017): the score, d log q(z|x) / d phi at fixed z, has mean
    zero and is left out; what remains vanishes, draw by draw, where q is the true posterior.

    Raises:
        ValueError: if the parameters are to be held fixed in a hierarchy, in a deterministic code or in a posterior
            that cannot be detached.
    """
    if estimator == "standard":
        return sum_groups([latent.log_ratio for latent in terms.latents])
    latent = only_latent(terms, f"estimator={estimator}")
    if isinstance(latent.q, (Delta, Quantized)):
        raise ValueError("estimator must be standard for a deterministic code, which has no density")
    return Latent(z=latent.z, q=detached(latent.q), p=latent.p).log_ratio


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    """Returns log (1/K) sum_k exp(values_k) along `dim`, of length K."""
    return values.logsumexp(dim) - math.log(values.shape[dim])


def importance_bound(terms: Terms, *, decoder_groups: int, encoder_groups: int, estimator: str) -> Tensor:
    """Returns the mean over the batch of (1/M) sum_m log (1/K) sum_k w_mk in nats, (), with M the decoder's groups.

    w = p(x, z) / q(z|x), and the M * K draws fall into M groups of K. The value is the bound itself, whatever the
    estimator. Its gradient by theta (decoder, prior) is that of M = `decoder_groups`, its gradient by phi (the encoder)
    that of M = `encoder_groups`. With v_k = w_k / sum w over the group, phi receives, per group,

    - standard: sum_k v_k d log w_k / d phi;
    - stl: the same without the score of q (Roeder, Wu & Duvenaud 2017); biased if K > 1 (Tucker et al. 2019);
    - dreg: sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi) (Tucker, Lawson, Gu & Maddison 2019, equation 8).

    Args:
        terms: of M * K draws.
        decoder_groups: M in theta's gradient and in the value.
        encoder_groups: M in phi's gradient.
        estimator: standard, stl or dreg.

    Raises:
        ValueError: if the draws do not fall into such groups; if phi is to be treated apart in a hierarchy, in a
            posterior that cannot be detached, or in a compiled model.
    """
    ratio = log_ratio(terms, estimator)
    log_w = terms.log_px + ratio
    bound = log_mean_exp(_grouped(log_w, decoder_groups), 1).mean()
    if decoder_groups == encoder_groups and estimator != "dreg":
        return bound
    decoder, encoder = _shares(log_w, decoder_groups), _shares(log_w, encoder_groups)
    if estimator == "dreg":
        encoder = encoder_groups * encoder.square()
    return bound + _encoder_part(encoder - decoder, terms, ratio) / log_w.shape[1]


def resampled_bound(terms: Terms, *, estimator: str) -> Tensor:
    """Returns the mean over the batch of log (1/K) sum_k w_k in nats, (), of the pool of K draws behind `terms`.

    The gradient comes from the J draws in `terms` alone, which were resampled in proportion to w: by theta the mean of
    their d log w, by phi what `importance_bound` says of the estimator. Both are unbiased estimates of the gradients of
    all K draws (Burda et al. 2016, section 3): for dreg, a draw is resampled with probability v and weighed by v. That
    holds for a decoder without noise of its own.

    Args:
        terms: of J resampled draws, with their `pool`.
        estimator: standard, stl or dreg.

    Raises:
        ValueError: as in `importance_bound`.
    """
    assert terms.pool is not None
    ratio = log_ratio(terms, estimator)
    log_w = terms.log_px + ratio
    chosen = log_w.mean()
    if estimator == "dreg":
        # At most 1; a decoder with noise of its own, as of dropout, may find a draw better the second time.
        shares = (log_w.detach() - terms.pool.log_weights.logsumexp(0)).clamp(max=0).exp()
        chosen = chosen + _encoder_part(shares - 1, terms, ratio) / log_w.numel()
    return log_mean_exp(terms.pool.log_weights, 0).mean() + chosen - chosen.detach()


def _grouped(log_w: Tensor, groups: int) -> Tensor:
    """Splits (M * K, B) into (M, K, B)."""
    if len(log_w) % groups:
        raise ValueError(f"{groups} groups need a multiple of {groups} draws, but there are {len(log_w)}")
    return log_w.unflatten(0, (groups, -1))


def _shares(log_w: Tensor, groups: int) -> Tensor:
    """Returns the derivative of the bound of an example by its log w, (M * K, B): w / sum w over the group, over M."""
    return _grouped(log_w.detach(), groups).softmax(1).flatten(0, 1) / groups


def _encoder_part(weights: Tensor, terms: Terms, ratio: Tensor) -> Tensor:
    """Returns 0, with the gradient of sum(weights * log w) by the encoder alone, for constant `weights` (K, B).

    log p(x|z) reaches the encoder through z only, so its derivative by z is taken on the spot. In `ratio`, which is
    log p(z) - log q(z|x), everything belongs to the encoder but the prior's own parameters.
    """
    latent = only_latent(terms, "treating the encoder's gradient apart")
    z = latent.z
    if not (torch.is_grad_enabled() and z.requires_grad):
        return weights.new_zeros(())
    (by_z,) = torch.autograd.grad((weights * terms.log_px).sum(), z, retain_graph=True, allow_unused=True)
    if by_z is None:
        raise ValueError("the encoder's gradient cannot be treated apart in a compiled model; choose compile=false")
    through_z = (by_z * (z - z.detach())).sum()
    through_ratio = (weights * (ratio - latent.p.log_prob(z.detach()))).sum()
    return through_z + through_ratio - through_ratio.detach()
