"""Two players whose gradients never meet, and what the discriminator measures at its optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from small_models import small_vae
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from vaelab.likelihoods import GaussianLikelihood
from vaelab.models import VAE, Latent, Terms
from vaelab.networks import ConvDiscriminator, Discriminator, MLPDiscriminator
from vaelab.objectives import AAE, VAEGAN, Adversarial, FactorVAE
from vaelab.objectives.adversarial import frozen
from vaelab.objectives.factor_vae import permuted
from vaelab.objectives.vae_gan import drawn, images_of
from vaelab.samplers import Delta


def on_latents() -> MLPDiscriminator:
    torch.manual_seed(4)
    return MLPDiscriminator(in_shape=(2,), hidden=[8])


def on_images() -> ConvDiscriminator:
    torch.manual_seed(4)
    return ConvDiscriminator(in_shape=(1, 2, 3), channels=[4], norm="batch", hidden=4)


MAKERS: dict[str, Callable[[], Adversarial]] = {
    "factor-vae": lambda: FactorVAE(discriminator=on_latents(), gamma=5.0, num_samples=2).double(),
    "aae": lambda: AAE(discriminator=on_latents(), num_samples=2).double(),
    "vae-gan": lambda: VAEGAN(discriminator=on_images(), gamma=0.1, num_samples=2).double(),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def a_model(likelihood: nn.Module | None = None) -> VAE:
    return small_vae(x_shape=(1, 2, 3), latent_dim=2, likelihood=likelihood).double()


def terms_of(model: VAE, num_samples: int, batch: int = 6) -> Terms:
    torch.manual_seed(1)
    return model(torch.rand(batch, 1, 2, 3).double(), num_samples=num_samples)


def latent_terms(z: Tensor, prior: Independent | None = None) -> Terms:
    """Terms of given draws z (K, B, D)."""
    zeros = torch.zeros(z.shape[-1], dtype=z.dtype)
    p = prior or Independent(Normal(zeros, torch.ones_like(zeros)), 1)
    return Terms(log_px=z.new_zeros(z.shape[:2]), latents=(Latent(z=z, q=Delta(z, z.ndim - 2), p=p),))


class Logit(nn.Module):
    """A discriminator given by a formula, with an offset to learn."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.formula, self.offset = formula, nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.formula(z) + self.offset


# ---- two players


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


def play(make: Callable[[], Adversarial], losses: tuple[str, ...]) -> tuple[list, list, Tensor]:
    """Returns the gradients of the model and of the discriminator after going back through some of the losses."""
    model, objective = a_model(), make()
    terms = terms_of(model, objective.num_samples)
    torch.manual_seed(2)
    weighed, _ = objective.weigh(terms, 0)
    discriminated, _ = objective.discriminate(terms, 0)
    torch.manual_seed(2)
    whole, _ = objective(terms, 0)
    total = sum({"weigh": weighed, "discriminate": discriminated, "forward": whole}[name] for name in losses)
    total.backward()
    return gradients(model), gradients(objective.discriminator), whole.detach() - weighed.detach()


@every
def test_no_gradient_crosses_between_the_players(make):
    of_model, of_discriminator, _ = play(make, ("weigh",))
    assert all(g is not None and g.any() for g in of_model)
    assert all(g is None for g in of_discriminator)
    of_model, of_discriminator, _ = play(make, ("discriminate",))
    assert all(g is None for g in of_model)
    assert all(g is not None and g.isfinite().all() for g in of_discriminator)
    assert sum(g.any() for g in of_discriminator) >= len(of_discriminator) - 1  # a bias before a batch norm has none


@every
def test_one_backward_pass_gives_both_players_their_own_gradients(make):
    of_model, of_discriminator, extra = play(make, ("forward",))
    for got, wanted in zip(of_model, play(make, ("weigh",))[0], strict=True):
        torch.testing.assert_close(got, wanted)
    for got, wanted in zip(of_discriminator, play(make, ("discriminate",))[1], strict=True):
        torch.testing.assert_close(got, wanted)
    assert extra == 0  # the value is the model's loss alone


@every
def test_evaluation_needs_no_graph_and_reports_both_players(make):
    objective = make().eval()
    for batch in (1, 2, 3):
        with torch.no_grad():
            loss, logs = objective(terms_of(a_model(), objective.num_samples, batch), 0)
        assert not loss.requires_grad
        assert logs["loss"] == loss
        assert 0 <= logs["discriminator_accuracy"] <= 1
        assert math.isfinite(logs["discriminator_loss"])


@every
def test_weights_of_half_precision_give_logs_in_single_precision(make):
    model, objective = a_model().bfloat16(), make().bfloat16()
    terms = model(torch.rand(6, 1, 2, 3).bfloat16(), num_samples=objective.num_samples)
    loss, logs = objective(terms, 0)
    loss.backward()
    assert all(p.grad is not None for p in objective.discriminator.parameters())
    assert logs["discriminator_loss"].dtype == loss.dtype == torch.float32


def test_a_frozen_network_passes_the_gradient_on():
    network = on_latents()
    x = torch.randn(5, 2, requires_grad=True)
    (wanted,) = torch.autograd.grad(network(x).sum(), x)
    frozen(network, x).sum().backward()
    torch.testing.assert_close(x.grad, wanted)
    assert all(p.grad is None for p in network.parameters())


# ---- total correlation


def correlated(rho: float, size: int, draws: int = 1) -> Tensor:
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64)
    return MultivariateNormal(torch.zeros(2).double(), covariance).sample((draws, size))


def log_ratio(rho: float) -> Callable[[Tensor], Tensor]:
    """log q(z) - sum_j log q(z_j) of two standard normals of correlation rho."""

    def formula(z: Tensor) -> Tensor:
        a, b = z.unbind(-1)
        return -0.5 * math.log(1 - rho**2) + (rho * a * b - rho**2 * (a**2 + b**2) / 2) / (1 - rho**2)

    return formula


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.9])
def test_the_optimal_discriminator_gives_the_total_correlation_in_closed_form(rho):
    torch.manual_seed(0)
    terms = latent_terms(correlated(rho, 100_000, draws=2))
    objective = FactorVAE(discriminator=Logit(log_ratio(rho)), gamma=3.0)
    loss, logs = objective.weigh(terms, 0)
    wanted = -0.5 * math.log(1 - rho**2)
    assert logs["total_correlation"].item() == pytest.approx(wanted, abs=0.02)
    torch.testing.assert_close(loss, 3.0 * logs["total_correlation"])
    # ... and it is the optimum of what the discriminator descends: no slope there.
    (slope,) = torch.autograd.grad(objective.discriminate(terms, 0)[0], objective.discriminator.offset)
    assert slope.item() == pytest.approx(0.0, abs=0.005)


def test_a_discriminator_that_is_trained_learns_the_total_correlation():
    torch.manual_seed(0)
    rho = 0.8
    objective = FactorVAE(discriminator=MLPDiscriminator(in_shape=(2,), hidden=[32, 32])).double()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    for step in range(400):
        optimizer.zero_grad()
        objective.discriminate(latent_terms(correlated(rho, 512)), step)[0].backward()
        optimizer.step()
    _, logs = objective(latent_terms(correlated(rho, 20_000)), 0)
    assert logs["total_correlation"].item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.1)
    assert 0.55 < logs["discriminator_accuracy"].item() < 0.9
    assert logs["discriminator_loss"].item() < math.log(2) - 0.05


def test_descending_the_loss_takes_the_correlation_out_of_the_latents():
    torch.manual_seed(0)
    share = torch.tensor(1.5, requires_grad=True)  # of the first dimension in the second
    objective = FactorVAE(discriminator=MLPDiscriminator(in_shape=(2,), hidden=[32]), gamma=1.0)
    optimizer = torch.optim.Adam([{"params": [share]}, {"params": objective.parameters()}], lr=1e-2, betas=(0.5, 0.9))
    path = []
    for step in range(500):
        optimizer.zero_grad()
        a, b = torch.randn(2, 1, 512)
        objective(latent_terms(torch.stack([a, share * a + b], -1)), step)[0].backward()
        optimizer.step()
        path.append(share.item())
    assert abs(sum(path[-100:])) / 100 < 0.2


def test_permuting_keeps_every_marginal_and_breaks_the_joint():
    torch.manual_seed(0)
    z = correlated(0.95, 5000, draws=3)
    shuffled = permuted(z)
    torch.testing.assert_close(shuffled.sort(1).values, z.sort(1).values)  # per draw and dimension, over the batch
    assert (shuffled.sort(2).values != z.sort(2).values).any(2).float().mean() > 0.99  # not within examples
    for draw in shuffled:
        assert abs(torch.corrcoef(draw.T)[0, 1]) < 0.06
    assert not torch.equal(*(s.argsort(0) for s in permuted(torch.arange(50.0).expand(1, 2, 50).mT)[0].T))


@pytest.mark.parametrize(("batch", "first", "second"), [(1, [0], [0]), (2, [0], [1]), (5, [0, 1, 2], [2, 3, 4])])
def test_the_halves_of_the_batch(batch, first, second):
    z = torch.arange(batch).double().view(1, batch, 1).repeat(2, 1, 3)
    joint, product = FactorVAE(discriminator=on_latents()).real_and_fake(latent_terms(z))
    torch.testing.assert_close(joint, z[:, first].flatten(0, 1))
    for column in product.unflatten(0, (2, -1)).movedim(2, 1).flatten(0, 1):
        assert sorted(column.tolist()) == second


def test_latent_maps_count_all_their_numbers():
    torch.manual_seed(0)
    z = torch.randn(1, 4, 2, 3, 3)
    objective = FactorVAE(discriminator=MLPDiscriminator(in_shape=(2, 3, 3), hidden=[4]))
    loss, _ = objective(latent_terms(z, Independent(Normal(torch.zeros(2, 3, 3), 1.0), 3)), 0)
    assert math.isfinite(loss.item())
    assert objective.real_and_fake(latent_terms(z))[1].shape == (2, 18)


# ---- matching the prior


def test_the_ratio_of_prior_and_posterior_is_the_optimum_of_the_discriminator():
    torch.manual_seed(0)
    shift = 1.5
    z = shift + torch.randn(1, 100_000, 1, dtype=torch.float64)
    ratio = Logit(lambda z: (shift**2 / 2 - shift * z).squeeze(-1))  # log N(z; 0, 1) / N(z; shift, 1)
    objective = AAE(discriminator=ratio, lambda_adv=2.0)
    loss, _ = objective.discriminate(latent_terms(z), 0)
    (slope,) = torch.autograd.grad(loss, ratio.offset)
    assert slope.item() == pytest.approx(0.0, abs=0.005)
    blind, _ = AAE(discriminator=Logit(lambda z: 0 * z.squeeze(-1))).discriminate(latent_terms(z), 0)
    assert loss.item() < blind.item() - 0.1
    assert blind.item() == pytest.approx(math.log(2))


def test_descending_the_loss_moves_the_posterior_onto_the_prior():
    torch.manual_seed(0)
    mean, log_std = torch.tensor([2.0, -1.0]).requires_grad_(), torch.tensor([-1.0, 0.5]).requires_grad_()
    prior = Independent(Normal(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0])), 1)
    objective = AAE(discriminator=MLPDiscriminator(in_shape=(2,), hidden=[32]), lambda_adv=1.0)
    optimizer = torch.optim.Adam(
        [{"params": [mean, log_std], "lr": 1e-2}, {"params": objective.parameters(), "lr": 1e-2}], betas=(0.5, 0.9)
    )
    averages = []
    for step in range(600):
        optimizer.zero_grad()
        z = mean + log_std.exp() * torch.randn(1, 256, 2)
        objective(latent_terms(z, prior), step)[0].backward()
        optimizer.step()
        averages.append(torch.cat([mean, log_std]).detach().clone())
    torch.testing.assert_close(torch.stack(averages[-200:]).mean(0), torch.tensor([0.5, 0.5, 0, 0]), atol=0.2, rtol=0)


def test_the_adversarial_term_by_its_formula():
    torch.manual_seed(0)
    z = torch.randn(2, 3, 2)
    discriminator = on_latents()
    loss, logs = AAE(discriminator=discriminator, lambda_adv=4.0).weigh(latent_terms(z), 0)
    wanted = -discriminator(z.flatten(0, 1)).sigmoid().log().mean()
    torch.testing.assert_close(logs["adversarial"], wanted.detach())
    torch.testing.assert_close(loss, 4.0 * wanted)


# ---- VAE-GAN


class LinearDiscriminator(Discriminator):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False))
        self.head = nn.Linear(4, 1)


@pytest.mark.parametrize("gamma", [0.1, 3.0])
def test_every_part_descends_its_own_share_of_the_losses(gamma):
    """Encoder: KL + d; decoder: (gamma d + G) / gamma, with d = |W (x - x~)|^2 / 2 in the place of the pixel term."""
    model, objective = a_model(), VAEGAN(discriminator=LinearDiscriminator(), gamma=gamma).double()
    w = objective.discriminator.features[1].weight.detach()
    v, b = (p.detach() for p in objective.discriminator.head.parameters())
    terms = terms_of(model, 1)
    torch.manual_seed(3)
    loss, logs = objective.weigh(terms, 0)
    loss.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    terms = terms_of(model, 1)
    torch.manual_seed(3)
    z = terms.latents[0].z[0]
    difference = (terms.x - model.decode(z)).flatten(1) @ w.T
    distance = difference.square().sum(1).mean() / 2
    made = torch.cat([model.decode(z.detach()), model.decode(drawn(terms))]).flatten(1)
    adversarial = softplus(-(made @ w.T @ v.T + b)).mean()
    torch.testing.assert_close(logs["similarity"], -distance.detach() - 2 * math.log(2 * math.pi))
    torch.testing.assert_close(logs["adversarial"], adversarial.detach())
    encoder = [n for n, _ in model.named_parameters() if not n.startswith("decoder")]
    decoder = [n for n, _ in model.named_parameters() if n.startswith("decoder")]
    parameters = dict(model.named_parameters())
    for names, own in (
        (encoder, terms.kl.mean() + distance),
        (decoder, (gamma * distance + adversarial) / gamma),
    ):
        assert names
        wanted = torch.autograd.grad(own, [parameters[n] for n in names], retain_graph=True)
        for name, gradient in zip(names, wanted, strict=True):
            torch.testing.assert_close(got[name], gradient, msg=name)


def test_real_is_the_data_and_fake_are_reconstructions_and_images_from_the_prior():
    model, objective = a_model(), VAEGAN(discriminator=on_images().double(), num_samples=2)
    terms = terms_of(model, 2)
    torch.manual_seed(3)
    real, fake = objective.real_and_fake(terms)
    torch.manual_seed(3)
    prior = model.decode(torch.randn(6, 2).double())
    torch.testing.assert_close(real, terms.x)
    torch.testing.assert_close(fake, torch.cat([model.decode(terms.latents[0].z.flatten(0, 1)), prior]))


def test_the_pixel_elbo_is_logged_but_not_descended():
    model, objective = a_model(GaussianLikelihood(scale="learned", sigma=0.3, x_shape=(1, 2, 3))), MAKERS["vae-gan"]()
    terms = terms_of(model, objective.num_samples)
    loss, logs = objective(terms, 0)
    torch.testing.assert_close(logs["elbo"], terms.elbo.mean().detach())
    # ... but by what only the likelihood can learn.
    scale = list(model.likelihood.parameters())
    got = torch.autograd.grad(loss, scale)
    torch.testing.assert_close(got, torch.autograd.grad(-terms.log_px.mean(), scale))


def test_made_images_keep_the_context_of_their_example():
    model = SimpleNamespace(p_x=lambda z, c: SimpleNamespace(mean=10 * z + c))
    context = torch.tensor([[1.0], [2.0], [3.0]])
    terms = Terms(log_px=torch.zeros(2, 3), latents=(), x=torch.zeros(3, 1), params=torch.zeros(1), context=context,
                  model=model)  # fmt: skip
    z = torch.arange(6.0).view(2, 3, 1)
    torch.testing.assert_close(images_of(terms, z.flatten(0, 1)).view(2, 3, 1), 10 * z + context)


# ---- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FactorVAE(discriminator=on_latents(), gamma=-1.0), "gamma must be a number of at least 0, but is -1"),
        (lambda: AAE(discriminator=on_latents(), lambda_adv=-1.0), "lambda_adv must be a number of at least 0"),
        (lambda: VAEGAN(discriminator=on_images(), gamma=0.0), "gamma must be a number above 0, but is 0.0"),
        (lambda: VAEGAN(discriminator=on_images(), num_samples=0), "num_samples must be a whole number of at least 1"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every
def test_hierarchies_are_refused(make):
    terms = latent_terms(torch.randn(1, 4, 2))
    two = Terms(log_px=terms.log_px, latents=terms.latents * 2)
    with pytest.raises(ValueError, match="one latent group, but this one has 2"):
        make()(two, 0)
