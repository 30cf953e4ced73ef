"""The KL taken apart: its parts add up, agree with closed forms, and know the size of the training set."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from vaelab.models import Latent, Terms
from vaelab.objectives import BetaTCVAE
from vaelab.objectives.tc import decompose_kl, log_batch_weights
from vaelab.samplers import Delta
from vaelab.schedules import Linear

SAMPLINGS = ("stratified", "minibatch_weighted")


def latent_of(mean: Tensor, std: Tensor, draws: int = 1) -> Latent:
    """A latent of q = N(mean, std^2), (B, *latent_shape) each, and a standard normal prior."""
    events = mean.ndim - 1
    q = Independent(Normal(mean, std), events)
    p = Independent(Normal(torch.zeros_like(mean[0]), torch.ones_like(mean[0])), events)
    return Latent(z=q.rsample((draws,)), q=q, p=p)


def random_latent(*shape: int, draws: int = 2, seed: int = 0) -> Latent:
    torch.manual_seed(seed)
    return latent_of(torch.randn(*shape).double(), torch.rand(*shape).double() + 0.3, draws)


def terms_of(latent: Latent) -> Terms:
    return Terms(log_px=-torch.rand(latent.z.shape[:2], dtype=torch.float64), latents=(latent,))


# ---- the parts and their sum


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("shape", [(6, 3), (5, 2, 2, 2)])
def test_parts_add_up_to_the_sampled_kl_draw_by_draw(sampling: str, shape: tuple[int, ...]) -> None:
    latent = random_latent(*shape)
    parts = decompose_kl(latent, log_batch_weights(shape[0], 100, sampling))
    torch.testing.assert_close(sum(parts), latent.log_qz - latent.log_pz)
    assert all(part.shape == (2, shape[0]) for part in parts)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_weights_of_one_are_the_sampled_elbo(sampling: str) -> None:
    terms = terms_of(random_latent(6, 3))
    loss, logs = BetaTCVAE(train_size=50, beta=1.0, sampling=sampling)(terms, 0)
    torch.testing.assert_close(loss, -terms.log_weights.mean())
    torch.testing.assert_close(logs["elbo"], terms.elbo.mean())
    assert not torch.isclose(logs["elbo"], -loss)  # its KL is in closed form


def test_every_part_has_its_own_weight_and_total_correlation_its_schedule() -> None:
    terms = terms_of(random_latent(6, 3))
    schedule = Linear(epochs=1, steps_per_epoch=10)
    loss, logs = BetaTCVAE(train_size=50, alpha=2.0, beta=8.0, gamma=0.5, schedule=schedule)(terms, 5)
    wanted = 2.0 * logs["mutual_information"] + 4.0 * logs["total_correlation"] + 0.5 * logs["dimension_wise_kl"]
    torch.testing.assert_close(loss, wanted - terms.log_px.mean())
    assert logs["beta"] == 4.0


def test_densities_by_their_formula() -> None:
    latent = random_latent(4, 3, draws=1)
    mean, std, z = latent.q.base_dist.loc.numpy(), latent.q.base_dist.scale.numpy(), latent.z[0].numpy()
    weights = log_batch_weights(4, 30, "stratified").exp().numpy()
    density = np.exp(-0.5 * ((z[:, None] - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))  # (4, 4, 3)
    q_z = (weights * density.prod(-1)).sum(1)
    q_zj = (weights[..., None] * density).sum(1)
    mi, tc, dwkl = (part[0].numpy() for part in decompose_kl(latent, torch.from_numpy(weights).log()))
    np.testing.assert_allclose(tc, np.log(q_z) - np.log(q_zj).sum(1))
    np.testing.assert_allclose(mi, latent.log_qz[0].numpy() - np.log(q_z))
    np.testing.assert_allclose(dwkl, np.log(q_zj).sum(1) - latent.log_pz[0].numpy())


@pytest.mark.parametrize("dimensions", [1, 2, 40])
def test_the_weight_of_an_example_counts_once_and_not_by_dimension(dimensions: int) -> None:
    # All posteriors alike and factorised: z says nothing about x, and its dimensions nothing about each other.
    torch.manual_seed(1)
    latent = latent_of(torch.ones(6, dimensions).double(), torch.full((6, dimensions), 0.5).double())
    mi, tc, dwkl = decompose_kl(latent, log_batch_weights(6, 1000, "stratified"))
    torch.testing.assert_close(mi, torch.zeros_like(mi))
    torch.testing.assert_close(tc, torch.zeros_like(tc))
    torch.testing.assert_close(dwkl, latent.log_qz - latent.log_pz)


def test_one_dimension_has_no_total_correlation() -> None:
    latent = random_latent(6, 1)
    for sampling in SAMPLINGS:
        _, tc, _ = decompose_kl(latent, log_batch_weights(6, 30, sampling))
        torch.testing.assert_close(tc, torch.zeros_like(tc))


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_large_batches_approach_the_closed_forms_of_a_gaussian_aggregate(rho: float) -> None:
    # mean ~ N(0, R), q(z|x) = N(mean, s^2 I): the aggregate is N(0, R + s^2 I).
    torch.manual_seed(2)
    std, correlation = 0.5, torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    mean = MultivariateNormal(torch.zeros(2).double(), correlation).sample((1500,))
    latent = latent_of(mean, torch.full_like(mean, std))
    mi, tc, dwkl = (p.mean().item() for p in decompose_kl(latent, log_batch_weights(1500, 10**7, "stratified")))
    aggregate = correlation + std**2 * torch.eye(2)
    variance = 1 + std**2
    assert tc == pytest.approx(-0.5 * math.log(1 - (rho / variance) ** 2), abs=0.04)
    assert mi == pytest.approx(0.5 * (torch.logdet(aggregate).item() - 2 * math.log(std**2)), abs=0.08)
    assert dwkl == pytest.approx(variance - 1 - math.log(variance), abs=0.05)


# ---- the weights


@pytest.mark.parametrize(("batch_size", "train_size"), [(2, 5), (4, 4), (4, 1000), (1, 10)])
def test_stratified_weights_of_an_example_add_up_to_1(batch_size: int, train_size: int) -> None:
    weights = log_batch_weights(batch_size, train_size, "stratified").exp()
    assert (weights > 0).all()
    total = weights.sum(1)
    # A batch of one knows of no others: only its own share is left.
    torch.testing.assert_close(total, torch.full_like(total, 1 / train_size if batch_size == 1 else 1.0))
    torch.testing.assert_close(weights.diagonal(), torch.full((batch_size,), 1 / train_size).double())


@pytest.mark.parametrize("batch_size", [2, 3, 4])
def test_stratified_estimate_is_the_aggregate_on_average_over_batches(batch_size: int) -> None:
    train_size = 5
    densities = torch.tensor([0.3, 2.0, 0.01, 5.0, 0.7]).double()  # q(z | x_n) for one z, drawn from x_0
    weights = log_batch_weights(batch_size, train_size, "stratified").exp()
    # Every batch of distinct examples with x_0 in it, at every place.
    batches = [b for b in itertools.permutations(range(train_size), batch_size) if 0 in b]
    estimates = [(weights[b.index(0)] * densities[list(b)]).sum() for b in batches]
    torch.testing.assert_close(torch.stack(estimates).mean(), densities.mean())


def test_minibatch_weights_are_1_over_the_sizes_of_training_set_and_batch() -> None:
    weights = log_batch_weights(4, 250, "minibatch_weighted").exp()
    torch.testing.assert_close(weights, torch.full((4, 4), 1 / 1000).double())


def test_the_size_of_the_training_set_counts() -> None:
    terms = terms_of(random_latent(6, 3))
    small, large = (
        BetaTCVAE(train_size=size, sampling="minibatch_weighted")(terms, 0)[1]["total_correlation"]
        for size in (100, 10_000)
    )
    torch.testing.assert_close(large - small, torch.tensor(2 * math.log(100), dtype=torch.float64))  # (D - 1) log
    small, large = (BetaTCVAE(train_size=size)(terms, 0)[1]["mutual_information"] for size in (10, 10_000))
    assert large > small + 0.1


def test_the_size_of_the_training_set_moves_the_gradient_of_stratified_weights_only() -> None:
    def gradient(train_size: int, sampling: str) -> Tensor:
        torch.manual_seed(3)
        mean = torch.randn(6, 3).double().requires_grad_()
        latent = latent_of(mean, torch.full((6, 3), 0.7).double())
        loss, _ = BetaTCVAE(train_size=train_size, sampling=sampling)(terms_of(latent), 0)
        return torch.autograd.grad(loss, mean)[0]

    torch.testing.assert_close(gradient(10, "minibatch_weighted"), gradient(10_000, "minibatch_weighted"))
    assert not torch.allclose(gradient(10, "stratified"), gradient(10_000, "stratified"), atol=1e-3)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_batches_of_one_and_batches_beyond_the_training_set_are_finite(batch: int, sampling: str) -> None:
    latent = random_latent(batch, 3)
    latent.q.base_dist.loc.requires_grad_()
    loss, logs = BetaTCVAE(train_size=4, sampling=sampling)(terms_of(latent), 0)
    assert math.isfinite(loss.item())
    assert math.isfinite(logs["total_correlation"].item())
    (gradient,) = torch.autograd.grad(loss, latent.q.base_dist.loc)
    assert gradient.isfinite().all()


# ---- refusals


def test_posteriors_that_do_not_factorise_are_refused() -> None:
    mean = torch.zeros(4, 2)
    full = MultivariateNormal(mean, torch.eye(2))
    for q in (full, Delta(mean, 1)):
        latent = Latent(z=q.rsample((1,)), q=q, p=MultivariateNormal(torch.zeros(2), torch.eye(2)))
        with pytest.raises(ValueError, match=f"factorises over dimensions, but this is a {type(q).__name__}"):
            BetaTCVAE(train_size=10)(Terms(log_px=torch.zeros(1, 4), latents=(latent,)), 0)


def test_hierarchies_are_refused() -> None:
    one, two = random_latent(4, 2), random_latent(4, 3)
    with pytest.raises(ValueError, match="total correlation needs a model with one latent group, but this one has 2"):
        BetaTCVAE(train_size=10)(Terms(log_px=torch.zeros(2, 4), latents=(one, two)), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": 0}, "train_size must be a whole number of at least 1, but is 0"),
        ({"train_size": 5, "beta": -1.0}, "beta must be a number of at least 0, but is -1.0"),
        ({"train_size": 5, "sampling": "mws"}, "sampling must be one of stratified, minibatch_weighted, but is 'mws'"),
    ],
)
def test_impossible_weights_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BetaTCVAE(**settings)
