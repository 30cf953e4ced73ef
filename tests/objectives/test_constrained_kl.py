"""Free bits, capacity, GECO: what the KL may cost, what it pays for, and what is logged meanwhile."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaelab.models import Latent, Terms
from vaelab.objectives import ELBO, GECO, Capacity, FreeBits, Objective
from vaelab.schedules import Linear

PER = ("dimension", "channel", "group")


def latent_with_kl(kl: Tensor) -> tuple[Latent, Tensor]:
    """A latent of q = N(mean, 1) and p = N(0, 1) whose KL, mean^2 / 2, is `kl` (B, *latent_shape); and its mean."""
    mean = (2 * kl).sqrt().requires_grad_()
    events = mean.ndim - 1
    q = Independent(Normal(mean, torch.ones_like(mean)), events)
    p = Independent(Normal(torch.zeros_like(mean[0]), torch.ones_like(mean[0])), events)
    return Latent(z=q.rsample((1,)), q=q, p=p), mean


def terms_with_kl(kl: Tensor, log_px: float = -7.0) -> tuple[Terms, Tensor]:
    latent, mean = latent_with_kl(kl.double())
    return Terms(log_px=torch.full((1, len(kl)), log_px, dtype=torch.float64), latents=(latent,)), mean


# ---- free bits


@pytest.mark.parametrize("per", PER)
def test_free_bits_of_0_nats_are_the_elbo_in_value_and_gradient(per: str) -> None:
    torch.manual_seed(0)
    kl = torch.rand(5, 3, 2, 2)
    results = []
    for objective in (FreeBits(free_nats=0.0, per=per, beta=0.7), ELBO(beta=0.7)):
        terms, mean = terms_with_kl(kl)
        loss, _ = objective(terms, 0)
        results.append((loss.detach(), *torch.autograd.grad(loss, mean)))
    torch.testing.assert_close(results[0], results[1])


def test_free_bits_clamp_every_dimension_by_itself_and_stop_its_gradient() -> None:
    terms, mean = terms_with_kl(torch.tensor([[0.1, 2.0, 0.49], [0.3, 1.0, 0.5]]))
    loss, logs = FreeBits(free_nats=0.5)(terms, 0)
    torch.testing.assert_close(loss.item(), 7.0 + 0.5 + 1.5 + 0.5)  # mean KLs 0.2, 1.5, 0.495
    (gradient,) = torch.autograd.grad(loss, mean)
    assert not gradient[:, [0, 2]].any()
    torch.testing.assert_close(gradient[:, 1], mean[:, 1].detach() / 2)
    torch.testing.assert_close(logs["kl"].item(), 0.2 + 1.5 + 0.495)
    torch.testing.assert_close(logs["elbo"].item(), -7.0 - 2.195)


def test_free_bits_average_over_the_batch_before_they_clamp() -> None:
    terms, _ = terms_with_kl(torch.tensor([[0.0], [1.5]]))
    loss, _ = FreeBits(free_nats=0.6)(terms, 0)
    torch.testing.assert_close(loss.item(), 7.0 + 0.75)  # clamped by example it were (0.6 + 1.5) / 2


@pytest.mark.parametrize(("per", "wanted"), [("dimension", 8 * 0.5), ("channel", 0.5 + 1.6), ("group", 1.8)])
def test_what_free_bits_count(per: str, wanted: float) -> None:
    kl = torch.stack([torch.full((2, 2), 0.05), torch.full((2, 2), 0.4)]).expand(3, 2, 2, 2)  # sums 0.2 and 1.6
    terms, _ = terms_with_kl(kl)
    loss, _ = FreeBits(free_nats=0.5, per=per)(terms, 0)
    torch.testing.assert_close(loss.item(), 7.0 + wanted)


def test_free_bits_by_group_clamp_each_latent_group() -> None:
    one, _ = latent_with_kl(torch.full((4, 2), 0.1).double())
    two, _ = latent_with_kl(torch.full((4, 3), 1.0).double())
    terms = Terms(log_px=torch.zeros(1, 4).double(), latents=(one, two))
    loss, logs = FreeBits(free_nats=0.5, per="group")(terms, 0)
    torch.testing.assert_close(loss.item(), 0.5 + 3.0)
    torch.testing.assert_close(logs["kl"].item(), 0.2 + 3.0)


def test_free_bits_follow_weight_and_schedule() -> None:
    terms, _ = terms_with_kl(torch.full((4, 2), 1.0))
    objective = FreeBits(free_nats=0.5, beta=3.0, schedule=Linear(epochs=2, steps_per_epoch=10))
    loss, logs = objective(terms, 5)
    torch.testing.assert_close(loss.item(), 7.0 + 3.0 * 0.25 * 2.0)
    assert logs["beta"] == 0.75


def test_free_bits_by_dimension_refuse_what_does_not_factorise_and_serve_it_by_group() -> None:
    torch.manual_seed(1)
    q = Independent(Normal(torch.randn(4, 2), torch.ones(4, 2)), 1)
    parts = Independent(Normal(torch.randn(3, 2), torch.ones(3, 2)), 1)
    latent = Latent(z=q.rsample((2,)), q=q, p=MixtureSameFamily(Categorical(torch.ones(3)), parts))
    terms = Terms(log_px=torch.zeros(2, 4), latents=(latent,))
    with pytest.raises(ValueError, match="are Independent and MixtureSameFamily; choose per=group"):
        FreeBits()(terms, 0)
    loss, _ = FreeBits(per="group", free_nats=100.0)(terms, 0)
    assert loss.item() == 100.0


# ---- capacity


@pytest.mark.parametrize(("kl", "sign"), [(1.0, -1), (6.0, 1)])
def test_capacity_draws_the_kl_from_both_sides(kl: float, sign: int) -> None:
    terms, mean = terms_with_kl(torch.full((3, 2), kl / 2))
    loss, logs = Capacity(capacity=4.0, gamma=10.0)(terms, 0)
    torch.testing.assert_close(loss.item(), 7.0 + 10.0 * abs(kl - 4.0))
    (gradient,) = torch.autograd.grad(loss, mean)
    torch.testing.assert_close(gradient, sign * 10.0 * mean.detach() / 3)
    torch.testing.assert_close(logs["elbo"].item(), -7.0 - kl)


def test_capacity_is_about_the_mean_over_the_batch() -> None:
    terms, _ = terms_with_kl(torch.tensor([[1.0], [7.0]]))
    loss, _ = Capacity(capacity=4.0, gamma=10.0)(terms, 0)
    torch.testing.assert_close(loss.item(), 7.0)  # example by example it were 7 + 10 * 3


def test_capacity_rises_along_its_schedule() -> None:
    terms, _ = terms_with_kl(torch.full((3, 1), 5.0))
    objective = Capacity(capacity=25.0, gamma=1.0, schedule=Linear(epochs=10, steps_per_epoch=10))
    capacities = [objective(terms, step)[1]["capacity"] for step in (0, 20, 100, 200)]
    assert capacities == [0.0, 5.0, 25.0, 25.0]
    losses = [objective(terms, step)[0].item() for step in (0, 20, 100)]
    assert losses == pytest.approx([7.0 + 5.0, 7.0, 7.0 + 20.0])


# ---- GECO


def geco(**settings: float) -> GECO:
    return GECO(**{"target": -5.0, "rate": 0.1, "smoothing": 0.5, **settings}).double()


@pytest.mark.parametrize(("log_px", "rises"), [(-9.0, True), (-3.0, False)])
def test_lambda_rises_while_reconstructions_are_worse_than_asked(log_px: float, rises: bool) -> None:
    objective = geco()
    terms, _ = terms_with_kl(torch.ones(3, 1), log_px)
    lambdas = [objective(terms, step)[1]["lambda"].item() for step in range(5)]
    assert lambdas[0] == 1.0
    assert sorted(lambdas, reverse=not rises) == lambdas
    assert len(set(lambdas)) == 5


def test_lambda_follows_the_running_average_of_the_constraint() -> None:
    objective = geco()
    average, log_lambda = None, 0.0
    for step, log_px in enumerate([-9.0, -6.0, -1.0, -4.0]):
        terms, _ = terms_with_kl(torch.ones(3, 1), log_px)
        loss, logs = objective(terms, step)
        constraint = -5.0 - log_px
        average = constraint if average is None else 0.5 * average + 0.5 * constraint
        assert logs["lambda"].item() == pytest.approx(math.exp(log_lambda))
        assert logs["constraint"].item() == pytest.approx(constraint)
        assert loss.item() == pytest.approx(1.0 + math.exp(log_lambda) * average)
        assert logs["elbo"].item() == pytest.approx(log_px - 1.0)
        log_lambda += 0.1 * average
    assert objective.log_lambda.item() == pytest.approx(log_lambda)


def test_geco_weighs_this_batchs_gradient_by_lambda() -> None:
    objective = geco()
    objective.log_lambda.fill_(math.log(3.0))
    objective.average.fill_(2.0)
    objective.batches.fill_(10.0)
    terms, mean = terms_with_kl(torch.ones(4, 2))
    log_px = torch.full((1, 4), -9.0, dtype=torch.float64, requires_grad=True)
    loss, _ = objective(Terms(log_px=log_px, latents=terms.latents), 0)
    by_log_px, by_mean = torch.autograd.grad(loss, [log_px, mean])
    torch.testing.assert_close(by_log_px, torch.full_like(by_log_px, -3.0 / 4))
    torch.testing.assert_close(by_mean, mean.detach() / 4)


def test_evaluation_leaves_lambda_alone_and_uses_the_batchs_own_constraint() -> None:
    objective = geco()
    terms, _ = terms_with_kl(torch.ones(3, 1), -9.0)
    objective(terms, 0)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    other, _ = terms_with_kl(torch.ones(3, 1), -7.0)
    loss, _ = objective.eval()(other, 1)
    torch.testing.assert_close(objective.state_dict(), before)
    assert loss.item() == pytest.approx(1.0 + math.exp(0.4) * 2.0)


def test_lambda_survives_saving_and_loading() -> None:
    batches = [terms_with_kl(torch.ones(3, 1), log_px)[0] for log_px in (-9.0, -8.0, -2.0, -6.0)]
    whole, first, second = geco(), geco(), geco()
    through = [whole(terms, step)[0].item() for step, terms in enumerate(batches)]
    halves = [first(terms, step)[0].item() for step, terms in enumerate(batches[:2])]
    assert set(first.state_dict()) == {"log_lambda", "average", "batches"}
    second.load_state_dict(first.state_dict())
    halves += [second(terms, 2 + step)[0].item() for step, terms in enumerate(batches[2:])]
    assert halves == through
    assert not list(whole.parameters())


def test_lambda_stays_finite_for_a_target_out_of_reach() -> None:
    objective = geco(rate=1.0)
    terms, _ = terms_with_kl(torch.ones(3, 1), -1000.0)
    for step in range(100):
        loss, logs = objective(terms, step)
    assert logs["lambda"].item() == pytest.approx(math.exp(10))
    assert math.isfinite(loss.item())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FreeBits(free_nats=-0.1), "free_nats must be a number of at least 0, but is -0.1"),
        (lambda: FreeBits(per="pixel"), "per must be one of dimension, channel, group, but is 'pixel'"),
        (lambda: Capacity(capacity=-1.0), "capacity must be"),
        (lambda: Capacity(gamma=float("nan")), "gamma must be"),
        (lambda: GECO(target=float("-inf")), "target must be a finite number, but is -inf"),
        (lambda: GECO(target=0.0, rate=0.0), "rate must be a number above 0, but is 0.0"),
        (lambda: GECO(target=0.0, smoothing=1.0), r"smoothing must lie in \[0, 1\), but is 1.0"),
    ],
)
def test_impossible_constraints_are_refused(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
