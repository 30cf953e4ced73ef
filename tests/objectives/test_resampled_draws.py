"""IWAE with draws that grow in number, and with few of them, resampled by their weights, in the gradient."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import small_vae
from torch import Tensor

from vaelab.models import VAE
from vaelab.networks import LabelCondition
from vaelab.numerics import systematic_resample
from vaelab.objectives import IWAE
from vaelab.objectives.estimators import ESTIMATORS
from vaelab.samplers import DeterministicSampler
from vaelab.schedules import Linear


def vae(*args: Any, **options: Any) -> VAE:
    model: VAE = small_vae(*args, **options).double().train()
    return model


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.bernoulli(torch.full((5, 1, 4, 4), 0.4, dtype=torch.float64), generator=generator)


def gradient(model: VAE, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("number", [1, 2, 7, 100])
def test_a_comb_draws_every_index_as_often_as_its_weight_says_to_the_nearest_integer(number: int) -> None:
    log_weights = 3 * torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    expected = number * log_weights.softmax(0)
    torch.manual_seed(0)
    for _ in range(20):
        index = systematic_resample(log_weights, number)
        assert index.shape == (number, 40)
        counts = torch.nn.functional.one_hot(index, 6).sum(0).T
        assert ((counts - expected).abs() < 1 + 1e-4).all()


def test_a_comb_draws_without_bias() -> None:
    log_weights = torch.tensor([0.1, 0.2, 0.7]).log().unsqueeze(1).expand(3, 100_000)
    torch.manual_seed(0)
    share = torch.bincount(systematic_resample(log_weights, 2).flatten(), minlength=3) / 200_000
    torch.testing.assert_close(share, torch.tensor([0.1, 0.2, 0.7]), atol=0.005, rtol=0)


def test_one_weight_above_all_others_is_always_chosen() -> None:
    log_weights = torch.full((4, 3), -1e4)
    log_weights[[2, 0, 3], [0, 1, 2]] = 0.0
    assert (systematic_resample(log_weights, 5) == torch.tensor([2, 0, 3])).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_many_resampled_draws_have_the_gradient_of_all_draws(x: Tensor, estimator: str) -> None:
    """A comb of J teeth takes draw k J v_k times, to within one: with J = 20,000 the gradients differ by 1 / J."""
    model, objective = vae(), IWAE(num_samples=6, estimator=estimator)
    torch.manual_seed(3)
    loss, logs = objective(model(x, num_samples=6), 0)
    whole = gradient(model, loss)
    torch.manual_seed(3)
    chosen, chosen_logs = objective(model.resampled_terms(x, num_samples=6, keep=20_000), 0)
    torch.testing.assert_close(gradient(model, chosen), whole, atol=2e-4 * whole.abs().max().item(), rtol=0)
    torch.testing.assert_close(chosen, loss)
    for name in ("loss", "iwae", "elbo", "kl", "reconstruction"):  # those of all draws: the chosen ones are too good
        torch.testing.assert_close(chosen_logs[name], logs[name])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_few_resampled_draws_have_it_on_average(x: Tensor, estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws of z every time, and another comb."""
    model, objective = vae(), IWAE(num_samples=6, keep=1, estimator=estimator)
    torch.manual_seed(3)
    whole = gradient(model, objective(model(x, num_samples=6), 0)[0])
    combs = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        "vaelab.models.vae.systematic_resample",
        lambda log_w, number: torch.multinomial(log_w.T.softmax(1), number, True, generator=combs).T,
    )
    found = []
    for _ in range(500):
        torch.manual_seed(3)
        found.append(gradient(model, objective(objective.terms(model, x, None, 0), 0)[0]))
    samples = torch.stack(found)
    assert ((samples.mean(0) - whole).abs() < 5 * samples.std(0) / 500**0.5 + 1e-9).all()
    assert samples.std(0).max() > 0


def test_noise_of_the_decoder_does_not_make_a_draw_count_more_than_all(x: Tensor) -> None:
    model, objective = vae(), IWAE(num_samples=50, keep=1, estimator="dreg")
    torch.manual_seed(3)
    terms = objective.terms(model, x, None, 0)
    whole = gradient(model, objective(terms, 0)[0])
    torch.manual_seed(3)
    again = objective.terms(model, x, None, 0)
    lucky = replace(again, log_px=again.log_px + 100.0)
    torch.testing.assert_close(gradient(model, objective(lucky, 0)[0]).norm(), whole.norm(), rtol=3.0, atol=0)


def test_the_context_goes_with_the_resampled_draws(x: Tensor) -> None:
    model, y = vae(condition=LabelCondition(num_classes=4)), torch.tensor([0, 1, 2, 3, 0])
    torch.manual_seed(0)
    terms = model.resampled_terms(x, y, num_samples=4, keep=2)
    again = model.likelihood.log_prob(
        torch.stack([model.decoder(z, model.condition(y)) for z in terms.latents[0].z]), x
    )
    torch.testing.assert_close(terms.log_px, again)
    assert (terms.log_px.T.unsqueeze(2) - terms.pool.log_px.T.unsqueeze(1)).abs().min(2).values.max() < 1e-9


@pytest.mark.parametrize(("step", "draws"), [(0, 1), (5, 7), (10, 50), (1000, 50)])
def test_the_number_of_draws_grows_by_its_schedule(x: Tensor, step: int, draws: int) -> None:
    objective = IWAE(num_samples=50, growth=Linear(epochs=1, steps_per_epoch=10))
    assert len(objective.terms(vae(), x, None, step).log_px) == draws
    assert objective.num_samples == 50  # what validation uses


@pytest.mark.parametrize(("draws", "kept"), [(50, 5), (5, 5), (3, 3)])
def test_only_some_of_the_draws_carry_the_gradient(x: Tensor, draws: int, kept: int) -> None:
    growth = Linear(epochs=1, steps_per_epoch=10, start=math.log(draws) / math.log(50))
    terms = IWAE(num_samples=50, keep=5, growth=growth).terms(vae(), x, None, 0)
    assert terms.log_px.shape == (kept, 5)
    assert (terms.pool is None) == (draws == kept)
    if terms.pool is not None:
        assert terms.pool.log_px.shape == (draws, 5)
        assert not terms.pool.log_weights.requires_grad


def test_refusals(x: Tensor) -> None:
    with pytest.raises(ValueError, match="keep must be a whole number of at least 1"):
        IWAE(num_samples=5, keep=0)
    with pytest.raises(ValueError, match="keep must be below num_samples=5, but is 5; null keeps all"):
        IWAE(num_samples=5, keep=5)
    with pytest.raises(ValueError, match="no density"):
        vae(DeterministicSampler).resampled_terms(x, num_samples=4, keep=1)
