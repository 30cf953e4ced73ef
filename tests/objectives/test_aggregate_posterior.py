"""DIP-VAE, InfoVAE, WAE-MMD, SWAE: distances between the aggregate posterior and the prior, against closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from vaelab.models import Latent, Terms
from vaelab.objectives import DIPVAE, ELBO, SWAE, InfoVAE, Objective
from vaelab.objectives.dip import covariance
from vaelab.objectives.mmd import kernel_matrix, prior_draws, squared_mmd
from vaelab.objectives.swae import squared_sliced_wasserstein
from vaelab.samplers import Delta

KERNELS = ("imq", "rbf")


def normal(mean: Tensor, std: Tensor | float = 1.0) -> Independent:
    std = torch.as_tensor(std, dtype=mean.dtype).expand_as(mean)
    return Independent(Normal(mean, std), 1)


def terms_of(q: Distribution, p: Distribution, draws: int = 1) -> Terms:
    z = q.rsample((draws,))
    return Terms(log_px=-torch.rand(z.shape[:2], dtype=z.dtype), latents=(Latent(z=z, q=q, p=p),))


def random_terms(draws: int = 1, batch: int = 8, latent: int = 3) -> Terms:
    torch.manual_seed(0)
    q = normal(torch.randn(batch, latent).double(), torch.rand(batch, latent).double() + 0.2)
    return terms_of(q, normal(torch.zeros(latent).double()), draws)


# ---- DIP-VAE


@pytest.mark.parametrize("variant", ["i", "ii"])
def test_dip_penalties_are_those_of_the_batchs_covariance(variant: str) -> None:
    terms = random_terms()
    q = terms.latents[0].q
    matrix = np.cov(q.mean.numpy(), rowvar=False, bias=True)
    if variant == "ii":
        matrix = matrix + np.diag(q.variance.numpy().mean(0))
    off_diagonal = sum(matrix[i, j] ** 2 for i in range(3) for j in range(3) if i != j)
    diagonal = sum((matrix[i, i] - 1) ** 2 for i in range(3))
    loss, logs = DIPVAE(variant=variant, lambda_od=5.0, lambda_d=2.0)(terms, 0)
    np.testing.assert_allclose(logs["dip_off_diagonal"].item(), off_diagonal)
    np.testing.assert_allclose(logs["dip_diagonal"].item(), diagonal)
    np.testing.assert_allclose(loss.item(), -terms.elbo.mean().item() + 5.0 * off_diagonal + 2.0 * diagonal)


def test_covariance_with_the_posteriors_own_is_that_of_the_aggregate() -> None:
    q = random_terms().latents[0].q
    draws = q.sample((200_000,)).flatten(0, 1)
    np.testing.assert_allclose(covariance(q, within=True).numpy(), np.cov(draws.numpy(), rowvar=False), atol=0.01)


def test_dip_is_content_with_an_aggregate_of_unit_covariance() -> None:
    # Means at the corners of a square of half-side a, variances 1 - a^2.
    corners = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]]).double() * 0.6
    terms = terms_of(normal(corners, 0.8), normal(torch.zeros(2).double()))
    _, second = DIPVAE(variant="ii")(terms, 0)
    _, first = DIPVAE(variant="i")(terms, 0)
    assert second["dip_off_diagonal"].item() == pytest.approx(0, abs=1e-12)
    assert second["dip_diagonal"].item() == pytest.approx(0, abs=1e-12)
    assert first["dip_diagonal"].item() == pytest.approx(2 * (1 - 0.36) ** 2)


def test_dip_ii_needs_the_posteriors_variance_and_dip_i_only_its_mean() -> None:
    class Flow(Delta):
        @property
        def variance(self) -> Tensor:
            raise NotImplementedError

    terms = terms_of(Flow(torch.randn(4, 2), 1), normal(torch.zeros(2)))
    assert math.isfinite(DIPVAE(variant="i")(terms, 0)[0].item())
    with pytest.raises(ValueError, match="variant must be i for a Flow posterior, whose variance is not known"):
        DIPVAE(variant="ii")(terms, 0)


def test_dip_adds_latent_groups_and_flattens_maps() -> None:
    torch.manual_seed(1)
    flat = random_terms().latents[0]
    q = Independent(Normal(flat.q.mean.reshape(8, 3, 1, 1), flat.q.variance.sqrt().reshape(8, 3, 1, 1)), 3)
    p = Independent(Normal(torch.zeros(3, 1, 1).double(), torch.ones(3, 1, 1).double()), 3)
    maps = Latent(z=q.rsample((1,)), q=q, p=p)
    log_px = torch.zeros(1, 8).double()
    _, one = DIPVAE()(Terms(log_px=log_px, latents=(flat,)), 0)
    _, two = DIPVAE()(Terms(log_px=log_px, latents=(flat, maps)), 0)
    torch.testing.assert_close(two["dip_off_diagonal"], 2 * one["dip_off_diagonal"])


# ---- kernels and MMD


def test_kernels_and_their_bandwidths() -> None:
    x, y = torch.zeros(1, 1, 4).double(), torch.ones(1, 1, 4).double()  # d^2 = 4
    assert kernel_matrix(x, y, "imq").item() == pytest.approx(8 / (8 + 4))  # C = 2 D
    assert kernel_matrix(x, y, "rbf").item() == pytest.approx(math.exp(-4 / 16))  # C = D^2
    assert kernel_matrix(x, y, "imq", 3.0).item() == pytest.approx(3 / (3 + 4))
    assert kernel_matrix(x, y, "rbf", 3.0).item() == pytest.approx(math.exp(-4 / 3))


def test_kernel_of_equal_points_is_1_with_a_finite_gradient() -> None:
    x = torch.ones(1, 3, 2).double().requires_grad_()
    for kernel in KERNELS:
        matrix = kernel_matrix(x, x, kernel)
        torch.testing.assert_close(matrix, torch.ones(1, 3, 3).double())
        assert torch.autograd.grad(matrix.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_squared_mmd_by_its_formula(kernel: str) -> None:
    torch.manual_seed(2)
    x, y = torch.randn(2, 2, 5, 3).double()

    def k(a: Tensor, b: Tensor) -> float:
        d = float((a - b).square().sum())
        return 6 / (6 + d) if kernel == "imq" else math.exp(-d / 9)

    wanted = 0.0
    for a, b in zip(x, y, strict=True):
        within = sum(k(s[i], s[j]) for s in (a, b) for i in range(5) for j in range(5) if i != j) / 20
        wanted += (within - 2 * sum(k(a[i], b[j]) for i in range(5) for j in range(5)) / 25) / 2
    assert squared_mmd(x, y, kernel).item() == pytest.approx(wanted)


@pytest.mark.parametrize("kernel", KERNELS)
def test_squared_mmd_of_one_distribution_is_0_on_average_even_for_small_batches(kernel: str) -> None:
    torch.manual_seed(3)
    estimates = torch.stack([squared_mmd(*torch.randn(2, 50, 4, 2).double(), kernel) for _ in range(200)])
    assert estimates.mean().abs() < 4 * estimates.std() / 200**0.5
    assert estimates.std() / 200**0.5 < 0.005  # the biased estimate is 0.1 or more too large
    assert (estimates < 0).any()


def test_squared_mmd_of_shifted_gaussians_is_the_closed_form() -> None:
    # E exp(-|u|^2 / C) for u ~ N(m, 2 I) is (C / (C + 4))^(D / 2) exp(-|m|^2 / (C + 4)).
    torch.manual_seed(4)
    shift, c = torch.tensor([1.0, -0.5]).double(), 4.0
    x, y = torch.randn(2, 2, 1000, 2).double()
    wanted = 2 * (c / (c + 4)) * (1 - math.exp(-1.25 / (c + 4)))
    assert squared_mmd(x, y + shift, "rbf").item() == pytest.approx(wanted, abs=0.02)
    assert wanted > 0.1
    assert squared_mmd(x, y + shift, "imq").item() > 0.05


def test_equal_samples_have_an_mmd_near_0() -> None:
    torch.manual_seed(5)
    x = torch.randn(1, 400, 2).double()
    for kernel in KERNELS:
        assert squared_mmd(x, x, kernel).item() == pytest.approx(0, abs=2 / 400)
        assert squared_mmd(x, x, kernel) < squared_mmd(x, x + 0.5, kernel) - 0.01


def test_draws_of_one_image_are_not_compared_with_each_other() -> None:
    torch.manual_seed(6)
    x, y = torch.randn(2, 3, 6, 2).double()
    by_draw = torch.stack([squared_mmd(x[k : k + 1], y[k : k + 1], "imq") for k in range(3)])
    torch.testing.assert_close(squared_mmd(x, y, "imq"), by_draw.mean())
    # Codes without noise: three draws of each are three times the same, and must not look like a narrow aggregate.
    point = 1.5 * torch.randn(5, 2).double()
    terms = [terms_of(Delta(point, 1), Delta(torch.zeros(2).double(), 1), draws) for draws in (1, 3)]
    for objective, name in ((InfoVAE(), "mmd"), (SWAE(num_projections=2000), "sliced_wasserstein")):
        one, three = (objective(t, 0)[1][name] for t in terms)
        torch.testing.assert_close(three, one, rtol=0.05, atol=0)


# ---- InfoVAE and WAE


def test_infovae_with_alpha_0_and_lambda_1_is_the_elbo() -> None:
    terms = random_terms(draws=2)
    torch.testing.assert_close(InfoVAE(alpha=0.0, lambda_mmd=1.0)(terms, 0)[0], ELBO()(terms, 0)[0])


def test_infovae_weighs_kl_and_mmd_by_alpha_and_lambda() -> None:
    terms = random_terms()
    loss, logs = InfoVAE(alpha=0.7, lambda_mmd=20.0)(terms, 0)
    torch.testing.assert_close(loss, 0.3 * logs["kl"] + 19.7 * logs["mmd"] - logs["reconstruction"])


def test_without_kl_the_spread_of_a_posterior_counts_only_through_its_draws() -> None:
    q = normal(torch.zeros(6, 2).double(), 0.1)
    torch.manual_seed(7)
    narrow = terms_of(q, normal(torch.zeros(2).double()))
    same_draws = Latent(z=narrow.latents[0].z, q=normal(torch.zeros(6, 2).double(), 1e-3), p=narrow.latents[0].p)
    losses = []
    for terms in (narrow, Terms(log_px=narrow.log_px, latents=(same_draws,))):
        torch.manual_seed(8)
        losses.append(InfoVAE(alpha=1.0, lambda_mmd=10.0, kernel="imq")(terms, 0)[0])
    torch.testing.assert_close(*losses)


def test_a_deterministic_code_is_drawn_to_the_prior() -> None:
    torch.manual_seed(9)
    point = torch.full((64, 2), 3.0).double().requires_grad_()
    terms = terms_of(Delta(point, 1), normal(torch.zeros(2).double()))
    for objective in (InfoVAE(lambda_mmd=10.0, kernel="imq"), SWAE()):
        loss, _ = objective(terms, 0)
        (gradient,) = torch.autograd.grad(loss, point)
        assert (gradient.sum(0) > 0).all()  # a step downhill moves the codes towards 0


def test_a_batch_of_one_has_no_mmd() -> None:
    terms = random_terms(batch=1)
    loss, logs = InfoVAE()(terms, 0)
    assert logs["mmd"].item() == 0
    torch.testing.assert_close(loss, -terms.log_px.mean())


# ---- draws of the prior


@pytest.mark.parametrize("batch_shape", [(), (5,), (4, 5)])
def test_as_many_draws_of_the_prior_as_of_the_posterior_whatever_its_batch_shape(batch_shape: tuple[int, ...]) -> None:
    torch.manual_seed(10)
    q = normal(torch.zeros(5, 3).double())
    centres = 100 * torch.arange(5).double() if batch_shape else torch.zeros(5).double()
    # Means by example, cut down to the batch shape.
    p = normal(centres.expand(4, 5)[..., None].expand(4, 5, 3)[(0,) * (2 - len(batch_shape))])
    z = prior_draws(Latent(z=q.rsample((4,)), q=q, p=p))
    assert z.shape == (4, 5, 3)
    torch.testing.assert_close(z.mean((0, 2)), centres, atol=2, rtol=0)
    assert len(z.flatten().unique()) == 60


def test_a_learned_prior_without_reparameterisation_is_drawn_from_without_gradient() -> None:
    torch.manual_seed(11)
    centres = torch.full((2, 3), 5.0).double().requires_grad_()
    p = MixtureSameFamily(Categorical(torch.ones(2).double()), normal(centres))
    near, far = normal(torch.full((64, 3), 5.0).double()), normal(torch.zeros(64, 3).double())
    assert not prior_draws(terms_of(near, p).latents[0]).requires_grad
    for objective, name in ((InfoVAE(), "mmd"), (SWAE(), "sliced_wasserstein")):
        assert objective(terms_of(near, p), 0)[1][name] < objective(terms_of(far, p), 0)[1][name] / 5


# ---- sliced Wasserstein


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_sliced_wasserstein_of_a_shift_is_its_squared_length_over_the_dimension(dimensions: int) -> None:
    torch.manual_seed(12)
    x = torch.randn(1, 20, dimensions).double()
    shift = torch.arange(1, dimensions + 1).double()
    distance = squared_sliced_wasserstein(x, x + shift, 20_000).item()
    assert distance == pytest.approx(shift.square().sum().item() / dimensions, rel=0.03)
    assert squared_sliced_wasserstein(x, x[:, torch.randperm(20)], 10).item() == pytest.approx(0)


def test_sliced_wasserstein_of_gaussians_is_the_closed_form() -> None:
    # W_2^2 of N(a, s^2) and N(b, t^2) is (a - b)^2 + (s - t)^2 along every direction.
    torch.manual_seed(13)
    x = torch.randn(1, 20_000, 2).double()
    y = torch.tensor([1.0, 2.0]).double() + 3 * torch.randn(1, 20_000, 2).double()
    assert squared_sliced_wasserstein(x, y, 200).item() == pytest.approx(5 / 2 + 4, rel=0.1)


def test_swae_adds_the_weighted_distance_and_no_kl() -> None:
    terms = random_terms()
    loss, logs = SWAE(lambda_sw=3.0)(terms, 0)
    torch.testing.assert_close(loss, 3.0 * logs["sliced_wasserstein"] - logs["reconstruction"])
    assert logs["sliced_wasserstein"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DIPVAE(variant="iii"), "variant must be one of i, ii, but is 'iii'"),
        (lambda: DIPVAE(lambda_od=-1.0), "lambda_od must be"),
        (lambda: InfoVAE(alpha=1.5), "alpha must be at most 1, but is 1.5"),
        (lambda: InfoVAE(alpha=-2.0, lambda_mmd=1.0), "lambda_mmd must be at least 1 - alpha = 3.0, but is 1.0"),
        (lambda: InfoVAE(kernel="laplace"), "kernel must be one of imq, rbf, but is 'laplace'"),
        (lambda: InfoVAE(bandwidth=0.0), "bandwidth must be a number above 0, but is 0.0"),
        (lambda: SWAE(num_projections=0), "num_projections must be"),
        (lambda: SWAE(lambda_sw=-1.0), "lambda_sw must be"),
    ],
)
def test_impossible_distances_are_refused(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
