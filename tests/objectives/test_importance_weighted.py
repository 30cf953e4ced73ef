"""IWAE, MIWAE, PIWAE, CIWAE, Renyi and the estimators of their gradients, against a model whose evidence is known."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from linear_gaussian import BIAS, LATENT, NOISE, WEIGHT, X, log_evidence, replicas, standard_normal, z_scores
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from vaelab.models import Latent, Terms
from vaelab.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Objective, Renyi
from vaelab.objectives.estimators import detached
from vaelab.samplers import Delta

ESTIMATORS = ("standard", "stl", "dreg")


def log_mean_exp(log_w: np.ndarray, axis: int) -> np.ndarray:
    top = log_w.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(log_w - top).mean(axis))


def log_w(terms: Terms) -> np.ndarray:
    latent = terms.latents[0]
    return (terms.log_px + latent.p.log_prob(latent.z) - latent.q.log_prob(latent.z)).detach().numpy()


def gradient_of(
    objective: Objective, seed: int, batch: int, which: str = "parameters", *, exact: bool = False
) -> Tensor:
    """The gradients of `batch` independent copies of one example, (batch, numbers)."""
    torch.manual_seed(seed)
    copies = replicas(batch, exact=exact)
    loss, _ = objective(copies.terms(objective.num_samples), 0)
    return copies.gradients(loss, getattr(copies, which))


# ---- values


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_iwae_loss_and_log_are_the_bound_itself_whatever_the_estimator(estimator: str) -> None:
    torch.manual_seed(0)
    terms = replicas(7).terms(5)
    loss, logs = IWAE(num_samples=5, estimator=estimator)(terms, 0)
    wanted = log_mean_exp(log_w(terms), 0).mean()
    np.testing.assert_allclose(-loss.item(), wanted)
    np.testing.assert_allclose(logs["iwae"].item(), wanted)
    np.testing.assert_allclose(logs["elbo"].item(), terms.elbo.mean().item())
    assert logs["elbo"] < logs["iwae"]


@pytest.mark.parametrize(("groups", "size"), [(3, 2), (2, 3), (1, 6), (6, 1)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_miwae_averages_the_bounds_of_its_groups(groups: int, size: int, estimator: str) -> None:
    torch.manual_seed(1)
    objective = MIWAE(num_groups=groups, group_size=size, estimator=estimator)
    assert objective.num_samples == 6
    terms = replicas(5).terms(6)
    loss, logs = objective(terms, 0)
    by_group = [log_mean_exp(log_w(terms)[m * size : (m + 1) * size], 0) for m in range(groups)]
    np.testing.assert_allclose(-loss.item(), np.mean(by_group))
    np.testing.assert_allclose(logs["iwae"].item(), log_mean_exp(log_w(terms), 0).mean())


def test_groups_of_draws_are_not_confused_with_draws_in_a_group() -> None:
    torch.manual_seed(1)
    terms = replicas(5).terms(6)
    three_of_two, _ = MIWAE(num_groups=3, group_size=2)(terms, 0)
    two_of_three, _ = MIWAE(num_groups=2, group_size=3)(terms, 0)
    one_of_six, _ = IWAE(num_samples=6)(terms, 0)
    assert one_of_six < two_of_three - 1e-3
    assert not torch.isclose(three_of_two, two_of_three, atol=1e-4)


def test_draws_that_do_not_fall_into_the_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="3 groups need a multiple of 3 draws, but there are 4"):
        MIWAE(num_groups=3, group_size=2)(replicas(2).terms(4), 0)


def test_the_bound_rises_with_the_draws_and_stays_below_the_evidence() -> None:
    torch.manual_seed(2)
    log_weights = log_w(replicas(8000).terms(32))
    sizes = (1, 2, 4, 8, 32)
    bounds = [log_mean_exp(log_weights[:size], 0) for size in sizes]
    for lower, higher in pairwise(bounds):
        gain = higher - lower
        assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
    last = bounds[-1]
    assert last.mean() < log_evidence().item() + 3 * last.std() / len(last) ** 0.5
    assert last.mean() > log_evidence().item() - 0.05
    # The objective computes these very figures.
    torch.manual_seed(2)
    terms = replicas(8000).terms(32)
    np.testing.assert_allclose(-IWAE(num_samples=32)(terms, 0)[0].item(), last.mean())


@pytest.mark.parametrize(
    "objective", [IWAE(num_samples=6), MIWAE(num_groups=3, group_size=2), Renyi(alpha=0.3, num_samples=6)]
)
def test_with_the_true_posterior_every_bound_is_the_evidence(objective: Objective) -> None:
    torch.manual_seed(3)
    loss, logs = objective(replicas(4, exact=True).terms(6), 0)
    torch.testing.assert_close(-loss.detach(), log_evidence())
    torch.testing.assert_close(logs["iwae"], log_evidence())


def test_iwae_with_one_draw_is_the_elbo_in_value_and_gradient() -> None:
    # A mixture has no KL in closed form: both sample it.
    prior = MixtureSameFamily(
        Categorical(torch.ones(3).double()),
        Independent(Normal(torch.randn(3, LATENT).double(), torch.ones(3, LATENT).double()), 1),
    )
    results = []
    for objective in (IWAE(num_samples=1), ELBO()):
        torch.manual_seed(4)
        copies = replicas(6, prior=prior)
        loss, _ = objective(copies.terms(1), 0)
        results.append((loss.detach(), copies.gradients(loss, copies.parameters)))
    torch.testing.assert_close(results[0], results[1])


def test_iwae_with_one_draw_has_the_gradient_of_the_closed_form_elbo_on_average() -> None:
    difference = gradient_of(IWAE(num_samples=1), 5, 20000) - gradient_of(ELBO(), 5, 20000)
    assert difference.std(0).max() > 0.1
    assert z_scores(difference[:, : 2 * LATENT]).abs().max() < 4


# ---- gradients


def test_standard_gradient_weighs_the_draws_by_their_share_in_the_example() -> None:
    torch.manual_seed(6)
    copies = replicas(4)
    terms = copies.terms(5)
    loss, _ = IWAE(num_samples=5)(terms, 0)
    share = np.exp(log_w(terms)) / np.exp(log_w(terms)).sum(0)  # (5, 4)
    residual = ((X - terms.latents[0].z @ WEIGHT.T - BIAS) / NOISE**2).detach().numpy()
    wanted = -(share[..., None] * residual).sum(0)
    np.testing.assert_allclose(copies.gradients(loss, [copies.bias]).numpy(), wanted)


def test_dreg_gradient_weighs_the_path_through_z_by_the_squared_share() -> None:
    torch.manual_seed(7)
    copies = replicas(4)
    terms = copies.terms(5)
    loss, _ = IWAE(num_samples=5, estimator="dreg")(terms, 0)
    share = np.exp(log_w(terms)) / np.exp(log_w(terms)).sum(0)
    z, mean, std = terms.latents[0].z.detach(), copies.mean.detach(), copies.log_std.detach().exp()
    residual = X - z @ WEIGHT.T - BIAS
    by_z = residual @ WEIGHT / NOISE**2 - z + (z - mean) / std**2  # of log w at fixed parameters, (5, 4, 2)
    path = (share[..., None] ** 2) * by_z.numpy()
    # dz / dmean = 1 and dz / dlog_std = z - mean.
    wanted = -np.concatenate([path.sum(0), (path * (z - mean).numpy()).sum(0)], 1)
    np.testing.assert_allclose(copies.gradients(loss, copies.encoder).numpy(), wanted)


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_decoder_gets_the_standard_gradient_from_every_estimator(estimator: str, groups: int) -> None:
    gradients = []
    for kind in ("standard", estimator):
        torch.manual_seed(8)
        copies = replicas(4)
        loss, _ = MIWAE(num_groups=groups, group_size=3, estimator=kind)(copies.terms(3 * groups), 0)
        gradients.append(copies.gradients(loss, [copies.bias]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("objective", "reference"),
    [
        (IWAE(num_samples=4, estimator="dreg"), IWAE(num_samples=4)),
        (MIWAE(num_groups=2, group_size=3, estimator="dreg"), MIWAE(num_groups=2, group_size=3)),
        (MIWAE(num_groups=3, group_size=1, estimator="stl"), MIWAE(num_groups=3, group_size=1)),
        (CIWAE(beta=0.4, num_samples=4, estimator="dreg"), CIWAE(beta=0.4, num_samples=4)),
        (ELBO(beta=0.5, num_samples=2, estimator="stl"), ELBO(beta=0.5, num_samples=2)),
        (PIWAE(num_groups=2, group_size=3, estimator="dreg"), PIWAE(num_groups=2, group_size=3)),
    ],
    ids=["iwae-dreg", "miwae-dreg", "elbo-stl-as-miwae", "ciwae-dreg", "elbo-stl", "piwae-dreg"],
)
def test_unbiased_estimators_agree_with_the_standard_gradient_on_average(
    objective: Objective, reference: Objective
) -> None:
    difference = gradient_of(objective, 9, 20000, "encoder") - gradient_of(reference, 9, 20000, "encoder")
    assert difference.std(0).min() > 1e-3
    assert z_scores(difference).abs().max() < 4


def test_stl_is_biased_for_several_draws_as_documented() -> None:
    stl, standard = (IWAE(num_samples=4, estimator=kind) for kind in ("stl", "standard"))
    difference = gradient_of(stl, 9, 20000, "encoder") - gradient_of(standard, 9, 20000, "encoder")
    assert z_scores(difference).abs().max() > 10


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(estimator="stl"),
        IWAE(num_samples=4, estimator="stl"),
        IWAE(num_samples=4, estimator="dreg"),
        CIWAE(beta=0.5, num_samples=4, estimator="stl"),
        PIWAE(num_groups=2, group_size=2, estimator="dreg"),
    ],
    ids=["elbo-stl", "iwae-stl", "iwae-dreg", "ciwae-stl", "piwae-dreg"],
)
def test_path_derivatives_vanish_draw_by_draw_at_the_true_posterior(objective: Objective) -> None:
    assert gradient_of(objective, 10, 50, "encoder", exact=True).abs().max() < 1e-12
    standard = IWAE(num_samples=objective.num_samples)
    assert gradient_of(standard, 10, 50, "encoder", exact=True).std(0).min() > 0.1


@pytest.mark.parametrize("draws", [1, 4, 16])
def test_dreg_has_less_variance_than_the_standard_estimator(draws: int) -> None:
    variances = [
        gradient_of(IWAE(num_samples=draws, estimator=kind), draws, 4000, "encoder").var(0)
        for kind in ("dreg", "standard")
    ]
    assert (variances[0] < variances[1] / 3).all()


def test_the_signal_to_noise_ratio_grows_with_the_draws_for_dreg_and_falls_for_the_standard_estimator() -> None:
    def signal_to_noise(estimator: str, draws: int) -> Tensor:
        gradient = gradient_of(IWAE(num_samples=draws, estimator=estimator), draws, 4000, "encoder")[:, :LATENT]
        return gradient.mean(0).abs() / gradient.std(0)

    # Four times the draws: twice the ratio for dreg, half of it for the standard estimator (Rainforth et al. 2018).
    assert ((signal_to_noise("dreg", 64) / signal_to_noise("dreg", 16)) > 1.7).all()
    assert ((signal_to_noise("standard", 16) / signal_to_noise("standard", 4)) < 0.7).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_piwae_gives_decoder_and_prior_iwaes_gradient_and_the_encoder_miwaes(estimator: str) -> None:
    results = []
    for objective in (
        PIWAE(num_groups=3, group_size=2, estimator=estimator),
        IWAE(num_samples=6, estimator=estimator),
        MIWAE(num_groups=3, group_size=2, estimator=estimator),
    ):
        torch.manual_seed(11)
        centre = torch.full((5, LATENT), 0.2).double().requires_grad_()  # of a learned prior: with the decoder
        copies = replicas(5, prior=Independent(Normal(centre, torch.ones(LATENT).double()), 1))
        loss, _ = objective(copies.terms(6), 0)
        results.append((loss.detach(), *copies.gradients(loss, [*copies.parameters, centre]).split([4, 5], 1)))
    piwae, iwae, miwae = results
    torch.testing.assert_close(piwae[0], iwae[0])
    torch.testing.assert_close(piwae[1], miwae[1])
    torch.testing.assert_close(piwae[2], iwae[2])
    assert not torch.allclose(piwae[1], iwae[1])
    assert not torch.allclose(piwae[2], miwae[2])


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_ciwae_mixes_elbo_and_iwae_in_value_and_gradient(beta: float) -> None:
    results = []
    for objective in (CIWAE(beta=beta, num_samples=4), MIWAE(num_groups=4, group_size=1), IWAE(num_samples=4)):
        torch.manual_seed(12)
        copies = replicas(5)
        loss, _ = objective(copies.terms(4), 0)
        results.append((loss.detach(), copies.gradients(loss, copies.parameters)))
    for ciwae, elbo, iwae in zip(*results, strict=True):
        torch.testing.assert_close(ciwae, beta * elbo + (1 - beta) * iwae)
        assert not torch.allclose(elbo, iwae)


# ---- Renyi


def test_renyi_of_order_0_is_iwae_and_of_order_1_the_elbo() -> None:
    torch.manual_seed(13)
    terms = replicas(6).terms(4)
    weights = log_w(terms)
    np.testing.assert_allclose(-Renyi(alpha=0.0, num_samples=4)(terms, 0)[0].item(), log_mean_exp(weights, 0).mean())
    np.testing.assert_allclose(-Renyi(alpha=1.0, num_samples=4)(terms, 0)[0].item(), weights.mean())


@pytest.mark.parametrize("step", [1e-4, -1e-4])
def test_renyi_goes_to_the_elbo_as_its_order_goes_to_1(step: float) -> None:
    torch.manual_seed(14)
    terms = replicas(6).terms(4)
    elbo, _ = Renyi(alpha=1.0, num_samples=4)(terms, 0)
    near, _ = Renyi(alpha=1.0 + step, num_samples=4)(terms, 0)
    torch.testing.assert_close(near, elbo, atol=1e-3, rtol=0)
    assert (near > elbo).item() == (step > 0)


def test_renyi_falls_as_its_order_rises() -> None:
    torch.manual_seed(15)
    terms = replicas(6).terms(8)
    bounds = [-Renyi(alpha=alpha, num_samples=8)(terms, 0)[0].item() for alpha in (-2.0, 0.0, 0.5, 1.0, 3.0)]
    assert all(high > low + 1e-3 for high, low in pairwise(bounds))


def test_renyi_by_its_formula() -> None:
    torch.manual_seed(16)
    terms = replicas(3).terms(4)
    wanted = np.mean(np.log(np.mean(np.exp(log_w(terms)) ** 0.3, 0)) / 0.3)
    np.testing.assert_allclose(-Renyi(alpha=0.7, num_samples=4)(terms, 0)[0].item(), wanted)


# ---- detaching a posterior


@pytest.mark.parametrize("family", ["diagonal", "full"])
def test_a_detached_posterior_has_the_same_density_and_differentiates_by_z_alone(family: str) -> None:
    torch.manual_seed(17)
    mean = torch.randn(4, 2).double().requires_grad_()
    scale = (torch.rand(4, 2).double() + 0.5).requires_grad_()
    if family == "diagonal":
        q = Independent(Normal(mean, scale), 1)
    else:
        q = MultivariateNormal(mean, scale_tril=torch.diag_embed(scale))
    z = torch.randn(3, 4, 2).double().requires_grad_()
    fixed = detached(q)
    torch.testing.assert_close(fixed.log_prob(z), q.log_prob(z))
    by_z, by_mean, by_scale = torch.autograd.grad(fixed.log_prob(z).sum(), [z, mean, scale], allow_unused=True)
    torch.testing.assert_close(by_z, torch.autograd.grad(q.log_prob(z).sum(), z)[0])
    assert by_mean is None
    assert by_scale is None
    assert q.log_prob(z).sum().requires_grad
    assert torch.autograd.grad(q.log_prob(z).sum(), mean)[0].any()


@pytest.mark.parametrize("objective", [ELBO(estimator="stl"), IWAE(num_samples=2, estimator="dreg")])
def test_a_deterministic_code_has_the_standard_gradient_only(objective: Objective) -> None:
    code = Delta(torch.randn(4, LATENT).requires_grad_(), 1)
    latent = Latent(z=code.rsample((2,)), q=code, p=standard_normal())
    with pytest.raises(ValueError, match="estimator must be standard for a deterministic code"):
        objective(Terms(log_px=latent.z.sum(-1), latents=(latent,)), 0)


def test_a_posterior_that_cannot_be_detached_is_refused_by_name() -> None:
    flow = TransformedDistribution(standard_normal(), [AffineTransform(0.0, 2.0)])
    with pytest.raises(ValueError, match=r"estimator must be standard for a TransformedDistribution .* transforms"):
        detached(flow)


# ---- models that the estimators cannot serve


def hierarchy() -> Terms:
    one, two = (replicas(4).terms(6) for _ in range(2))
    return Terms(log_px=one.log_px + two.log_px, latents=one.latents + two.latents)


def test_the_weights_of_a_hierarchy_multiply_over_its_groups() -> None:
    torch.manual_seed(18)
    terms = hierarchy()
    loss, _ = IWAE(num_samples=6)(terms, 0)
    parts = terms.log_px + sum(latent.log_pz - latent.log_qz for latent in terms.latents)
    np.testing.assert_allclose(-loss.item(), log_mean_exp(parts.detach().numpy(), 0).mean())


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(estimator="stl"),
        IWAE(num_samples=6, estimator="dreg"),
        IWAE(num_samples=6, estimator="stl"),
        PIWAE(num_groups=3, group_size=2),
    ],
    ids=["elbo-stl", "iwae-dreg", "iwae-stl", "piwae"],
)
def test_estimators_that_treat_the_encoder_apart_refuse_a_hierarchy(objective: Objective) -> None:
    with pytest.raises(ValueError, match="needs a model with one latent group, but this one has 2"):
        objective(hierarchy(), 0)


@pytest.mark.parametrize("objective", [IWAE(num_samples=4, estimator="dreg"), PIWAE(num_groups=2, group_size=2)])
def test_a_decoder_that_cannot_be_reached_from_z_is_refused(objective: Objective) -> None:
    terms = replicas(3).terms(4)
    latent = terms.latents[0]
    # As after torch.compile: log_px does not come from this very tensor.
    apart = Latent(z=latent.z.clone(), q=latent.q, p=latent.p)
    with pytest.raises(ValueError, match="choose compile=false"):
        objective(Terms(log_px=terms.log_px, latents=(apart,)), 0)


@pytest.mark.parametrize("objective", [IWAE(num_samples=4, estimator="dreg"), PIWAE(num_groups=2, group_size=2)])
def test_evaluation_without_gradients_gives_the_same_value(objective: Objective) -> None:
    torch.manual_seed(19)
    terms = replicas(3).terms(4)
    trained, _ = objective(terms, 0)
    with torch.no_grad():
        torch.manual_seed(19)
        evaluated, _ = objective(replicas(3).terms(4), 0)
    torch.testing.assert_close(trained.detach(), evaluated)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IWAE(num_samples=0), "num_samples must be a whole number of at least 1, but is 0"),
        (lambda: IWAE(estimator="drag"), "estimator must be one of standard, stl, dreg, but is 'drag'"),
        (lambda: MIWAE(num_groups=0), "num_groups must be"),
        (lambda: PIWAE(group_size=-1), "group_size must be"),
        (lambda: CIWAE(beta=1.5), "beta must lie in .0, 1., but is 1.5"),
        (lambda: Renyi(alpha=float("inf")), "alpha must be a finite number, but is inf"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
