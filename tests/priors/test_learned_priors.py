"""Priors with parameters: Gaussian mixture, flow and VampPrior."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from vaelab.models import Latent
from vaelab.priors import BernoulliPrior, CategoricalPrior, FlowPrior, GaussianMixturePrior, Prior, VampPrior
from vaelab.samplers import (
    CategoricalSampler,
    DeterministicSampler,
    GaussianSampler,
    IAFSampler,
    PlanarFlowSampler,
    VonMisesFisherSampler,
)
from vaelab.samplers.base import Sampler

X_SHAPE = (1, 4, 4)


class Model(nn.Module):
    """As much of a VAE as a prior needs."""

    def __init__(self, prior: Prior, sampler: Sampler) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh())
        self.sampler = sampler
        self.prior = prior
        prior.attach(self.posterior, X_SHAPE, sampler)

    def posterior(self, x: Tensor) -> Distribution:
        return self.sampler(self.encoder((x - 0.4) / 0.3))


def gaussian_model(components: int = 7, latent_shape: tuple[int, ...] = (3,)) -> Model:
    torch.manual_seed(0)
    sampler = GaussianSampler(in_shape=(5,), latent_shape=latent_shape)
    return Model(VampPrior(latent_shape=latent_shape, components=components), sampler).double()


@pytest.mark.parametrize("latent_shape", [(3,), (3, 2, 2)])
@pytest.mark.parametrize("kind", [GaussianMixturePrior, FlowPrior])
def test_prior_is_one_distribution_over_the_latent_shape_whose_parameters_learn(
    kind: type[Prior], latent_shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    prior = kind(latent_shape=latent_shape).double()
    p = prior()
    assert (p.batch_shape, p.event_shape) == ((), latent_shape)
    z = p.sample((4, 5))
    assert z.shape == (4, 5, *latent_shape)
    assert not z.requires_grad
    log_prob = p.log_prob(z)
    assert log_prob.shape == (4, 5)
    assert log_prob.dtype == torch.float64
    log_prob.square().sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_mixture_density_integrates_to_one_and_has_its_formula() -> None:
    torch.manual_seed(0)
    prior = GaussianMixturePrior(latent_shape=(1,), components=3, spread=3).double()
    for parameter in prior.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    p = prior()
    z = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    density = p.log_prob(z.unsqueeze(-1)).exp()
    assert torch.trapezoid(density, z).item() == pytest.approx(1, abs=1e-6)
    pi, mu, sigma = prior.logits.softmax(0), prior.means[:, 0], prior.log_stds[:, 0].exp()
    expected = sum(w * Normal(m, s).log_prob(z).exp() for w, m, s in zip(pi, mu, sigma, strict=True))
    torch.testing.assert_close(density, expected)


def test_mixture_components_start_apart() -> None:
    torch.manual_seed(0)
    prior = GaussianMixturePrior(latent_shape=(2,), components=200, spread=4.0)
    assert prior.means.std().item() == pytest.approx(4, rel=0.15)
    assert prior().responsibilities(prior.means).max(-1).values.min() > 1 / 200


def test_fitting_a_mixture_recovers_the_data_and_sorts_it() -> None:
    torch.manual_seed(0)
    prior = GaussianMixturePrior(latent_shape=(1,), components=2)
    data = torch.cat([torch.randn(300, 1) * 0.5 - 3, torch.randn(100, 1) * 0.5 + 3])
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (-prior().log_prob(data).mean()).backward()
        optimizer.step()
    p = prior()
    order = prior.means[:, 0].argsort()
    torch.testing.assert_close(prior.logits.softmax(0)[order], torch.tensor([0.75, 0.25]), atol=0.02, rtol=0)
    torch.testing.assert_close(prior.means[order, 0], torch.tensor([-3.0, 3.0]), atol=0.15, rtol=0)
    assert (p.responsibilities(data)[:300, order[0]] > 0.99).float().mean() > 0.95


@pytest.mark.parametrize("transform", ["affine", "spline"])
def test_flow_prior_density_integrates_to_one_and_belongs_to_its_draws(transform: str) -> None:
    torch.manual_seed(0)
    prior = FlowPrior(latent_shape=(2,), transform=transform, steps=3, hidden=[8], bins=4).double()
    for parameter in prior.parameters():
        parameter.data *= 1.5
    with torch.no_grad():
        p = prior()
        z = p.sample((20_000,))
        torch.testing.assert_close(p.log_prob(z), p.log_prob(z.clone()))
        low, high = z.amin(0) - z.std(0), z.amax(0) + z.std(0)
        axes = [torch.linspace(low[i], high[i], 401, dtype=torch.float64) for i in range(2)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        density = p.log_prob(grid).exp()
    inner = torch.trapezoid(density, axes[1])
    assert torch.trapezoid(inner, axes[0]).item() == pytest.approx(1, abs=2e-3)
    mean = torch.trapezoid(inner * axes[0], axes[0]).item()
    assert z[:, 0].mean().item() == pytest.approx(mean, abs=0.05)


def test_vamp_density_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs() -> None:
    model = gaussian_model()
    z = torch.randn(4, 5, 3, dtype=torch.float64)
    parts = [model.posterior(u.unsqueeze(0)).log_prob(z) for u in model.prior.pseudo_inputs]
    expected = torch.stack(parts).logsumexp(0) - math.log(7)
    assert (parts[0] - parts[1]).abs().max() > 1e-3
    torch.testing.assert_close(model.prior().log_prob(z), expected)


def test_vamp_draws_come_from_the_posteriors() -> None:
    model = gaussian_model(components=3)
    for parameter in model.sampler.mean.parameters():
        parameter.data *= 20  # posteriors far apart
    q = model.posterior(model.prior.pseudo_inputs)
    z = model.prior().sample((20_000,))
    torch.testing.assert_close(z.mean(0), q.mean.mean(0), atol=0.05, rtol=0.05)
    second = (q.variance + q.mean.square()).mean(0)
    torch.testing.assert_close(z.square().mean(0), second, atol=0.05, rtol=0.05)


def test_vamp_teaches_the_encoder_and_its_pseudo_inputs_and_owns_only_these() -> None:
    model = gaussian_model()
    assert [name for name, _ in model.prior.named_parameters()] == ["pseudo_logits"]
    assert model.prior.pseudo_logits.shape == (7, *X_SHAPE)
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) == 1 + 2 + 4
    assert all(not name.startswith("prior.") or name == "prior.pseudo_logits" for name in model.state_dict())
    model.prior().log_prob(torch.randn(9, 3, dtype=torch.float64)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_pseudo_inputs_are_encoded_in_training_as_at_evaluation_and_leave_no_trace() -> None:
    model = gaussian_model()
    model.encoder.extend([nn.BatchNorm1d(5), nn.Dropout(0.5)]).double()
    model.train().posterior(torch.rand(50, *X_SHAPE).double())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z = torch.randn(4, 3, dtype=torch.float64)
    training = model.prior().log_prob(z)
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(training, model.eval().prior().log_prob(z))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_deterministic_code_has_no_posteriors_to_be_fitted_to() -> None:
    z = torch.randn(4, 3, dtype=torch.float64)
    gaussian_model().prior.initialize(z)
    prior = VampPrior(latent_shape=(3,), components=2)
    model = Model(prior, DeterministicSampler(in_shape=(5,), latent_shape=(3,))).double()
    with torch.no_grad(), pytest.raises(ValueError, match="a deterministic code has none; choose"):
        model.prior.initialize(z)


def test_pseudo_inputs_stay_in_the_range_of_the_data() -> None:
    prior = VampPrior(latent_shape=(3,), components=4, low=-1, high=3)
    prior.attach(lambda x: Independent(Normal(x.flatten(1)[:, :3], 1.0), 1), X_SHAPE)
    prior.pseudo_logits.data = 100 * torch.randn_like(prior.pseudo_logits)
    assert prior.pseudo_inputs.min() >= -1
    assert prior.pseudo_inputs.max() <= 3
    prior.pseudo_logits.data.zero_()
    torch.testing.assert_close(prior.pseudo_inputs, torch.ones(4, *X_SHAPE))


def test_copy_of_a_model_asks_its_own_encoder() -> None:
    model = gaussian_model()
    twin = copy.deepcopy(model)
    z = torch.randn(5, 3, dtype=torch.float64)
    before = model.prior().log_prob(z)
    for parameter in model.parameters():
        parameter.data += 0.5
    torch.testing.assert_close(twin.prior().log_prob(z), before)
    assert (model.prior().log_prob(z) - before).abs().max() > 1e-3


def test_kl_to_a_vamp_prior_of_the_same_image_alone_is_zero() -> None:
    model = gaussian_model(components=1)
    q = model.posterior(model.prior.pseudo_inputs)
    latent = Latent(z=q.rsample((4,)), q=q, p=model.prior())
    torch.testing.assert_close(latent.kl, torch.zeros(4, 1, dtype=torch.float64))


@pytest.mark.parametrize("build", [VonMisesFisherSampler, CategoricalSampler, IAFSampler, PlanarFlowSampler])
def test_vamp_fits_other_posteriors(build: type[Sampler]) -> None:
    torch.manual_seed(0)
    model = Model(VampPrior(latent_shape=(10,), components=3), build(in_shape=(5,), latent_shape=(10,)))
    q = model.posterior(torch.rand(4, *X_SHAPE))
    z = q.rsample((2,))
    parts = [model.posterior(u.unsqueeze(0)).log_prob(z.clone()) for u in model.prior.pseudo_inputs]
    p = model.prior()
    torch.testing.assert_close(p.log_prob(z), torch.stack(parts).logsumexp(0) - math.log(3))
    assert p.sample((6,)).shape == (6, 10)


def test_vamp_without_a_model_and_wrong_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="call attach"):
        VampPrior(latent_shape=(3,))()
    with pytest.raises(ValueError, match=r"high must be above low=1\.0, but is 1\.0"):
        VampPrior(latent_shape=(3,), low=1.0, high=1.0)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_learned_categorical_prior_starts_uniform_and_learns(temperature: float | None) -> None:
    torch.manual_seed(0)
    options = {"latent_shape": (6, 2, 2), "classes": 3, "temperature": temperature}
    fixed, learned = CategoricalPrior(**options), CategoricalPrior(**options, learned=True)
    assert not list(fixed.parameters())
    z = fixed().sample((5,))
    torch.testing.assert_close(learned().log_prob(z), fixed().log_prob(z))
    learned().log_prob(z).sum().backward()
    assert learned.logits.grad.abs().sum() > 0


def test_bernoulli_prior_gives_every_code_the_same_probability_until_it_learns() -> None:
    prior = BernoulliPrior(latent_shape=(4,), learned=True)
    codes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    torch.testing.assert_close(prior().log_prob(codes), torch.full((16,), -4 * math.log(2)))
    torch.nn.init.normal_(prior.logits)
    torch.testing.assert_close(prior().log_prob(codes).exp().sum(), torch.tensor(1.0))
    assert kl_divergence(prior(), BernoulliPrior(latent_shape=(4,))()) > 0
