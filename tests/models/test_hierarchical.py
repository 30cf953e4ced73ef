"""The deep top-down hierarchy: the flat VAE at one block, joint densities, and what every block passes on."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal

from vaelab.likelihoods import BernoulliLikelihood, DiscretizedLogisticMixtureLikelihood, GaussianLikelihood
from vaelab.models import VAE, HierarchicalVAE
from vaelab.models.hierarchical import TopDownBlock
from vaelab.networks import Decoder, Encoder, LabelCondition
from vaelab.objectives import ELBO, IWAE, FreeBits
from vaelab.priors import Prior
from vaelab.samplers import Sampler

X_SHAPE = (1, 6, 5)


def make(*, spread: float = 0.3, **more: object) -> HierarchicalVAE:
    """A small model; with all weights drawn from N(0, spread^2), as the zeros of the start would hide a fault."""
    torch.manual_seed(0)
    options = dict(x_shape=X_SHAPE, likelihood=BernoulliLikelihood(), blocks=[1, 2], channels=4, latent_channels=2)
    model = HierarchicalVAE(**{**options, **more})
    for p in model.parameters():
        if spread:
            nn.init.normal_(p, std=spread)
    return model


def images(count: int = 5, shape: tuple[int, int, int] = X_SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


# ---- one block


class UpPath(Encoder):
    """What the posterior network of the only block emits."""

    def __init__(self, model: HierarchicalVAE) -> None:
        super().__init__()
        self.model, self.in_shape, self.out_shape = model, X_SHAPE, (4, *X_SHAPE[1:])

    def forward(self, x: Tensor) -> Tensor:
        h = self.model.up[0](self.model.first(x))
        return self.model.top.posterior_net(torch.cat([self.model.start.map.expand(len(x), -1, -1, -1), h], 1))


class Split(Sampler):
    """The mean and the logarithm of the standard deviation, one after the other."""

    latent_shape = (2, *X_SHAPE[1:])

    def forward(self, features: Tensor) -> Independent:
        mean, log_std = features.chunk(2, 1)
        return Independent(Normal(mean, log_std.exp()), 3)


class LearnedGaussian(Prior):
    """N(mu, sigma^2) as the block emits it for the learned start."""

    latent_shape = Split.latent_shape

    def __init__(self, model: HierarchicalVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Independent:
        mean, log_std, _ = self.model.top.prior_net(self.model.start.map[None])[0].split([2, 2, 4])
        return Independent(Normal(mean, log_std.exp()), 3)


class DownPath(Decoder):
    """What becomes of the learned start, of r and of z."""

    in_shape, out_shape = Split.latent_shape, X_SHAPE

    def __init__(self, model: HierarchicalVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        start = self.model.start.map[None]
        h = start + self.model.top.prior_net(start)[:, 4:] + self.model.top.z_in(z)
        return self.model.last(self.model.top.residual(h))


def test_one_block_is_the_flat_vae_of_the_same_layers() -> None:
    model = make(blocks=[1])
    flat = VAE(
        encoder=UpPath(model),
        sampler=Split(),
        prior=LearnedGaussian(model),
        decoder=DownPath(model),
        likelihood=BernoulliLikelihood(),
    )
    x = images()
    torch.manual_seed(7)
    found = model.elbo(x, num_samples=4)
    torch.manual_seed(7)
    torch.testing.assert_close(found, flat.elbo(x, num_samples=4))
    torch.testing.assert_close(model.reconstruct(x), flat.reconstruct(x))
    torch.testing.assert_close(model.sample(6, seed=3), flat.sample(6, seed=3))
    assert model.elbo(x).std() > 0.01  # x matters


# ---- the joint densities


@pytest.mark.parametrize("residual", [False, True])
def test_log_weights_are_those_of_the_joint_densities(residual: bool) -> None:
    model, x = make(residual_posterior=residual), images()
    terms = model(x, num_samples=3)
    low = model.up[0](model.first(x))
    high = model.up[1](nn.functional.adaptive_avg_pool2d(low, (3, 2)))
    assert [latent.z.shape[2:] for latent in terms.latents] == [(2, 3, 2), (2, 3, 2), (2, 6, 5)]
    for k in range(3):
        h, log_p, log_q = model.start.map.expand(5, -1, -1, -1), 0, 0
        for latent, block, a in zip(terms.latents, [*model.down[1], *model.down[0]], [high, high, low], strict=True):
            if h.shape[2:] != a.shape[2:]:
                h = nn.functional.interpolate(h, a.shape[2:])
            mean, log_std, r = block.prior_net(h).split([2, 2, 4], 1)
            q_mean, q_log_std = block.posterior_net(torch.cat([h, a], 1)).chunk(2, 1)
            if residual:
                q_mean, q_log_std = mean + q_mean, log_std + q_log_std
            log_p = log_p + Independent(Normal(mean, log_std.exp()), 3).log_prob(latent.z[k])
            log_q = log_q + Independent(Normal(q_mean, q_log_std.exp()), 3).log_prob(latent.z[k])
            h = block.residual(h + r + block.z_in(latent.z[k]))
        log_px = Independent(Bernoulli(logits=model.last(h), validate_args=False), 3).log_prob(x)
        torch.testing.assert_close(terms.log_weights[k], log_px + log_p - log_q, rtol=1e-4, atol=1e-3)


def test_the_kl_of_a_residual_posterior_is_that_of_the_paper() -> None:
    """Vahdat & Kautz 2020, section 3.2: KL = (dmu^2 / sigma^2 + dsigma^2 - log dsigma^2 - 1) / 2, summed."""
    model, x = make(blocks=[1], residual_posterior=True), images()
    (latent,) = model(x).latents
    h = model.start.map.expand(5, -1, -1, -1)
    dmu, dlog = model.top.posterior_net(torch.cat([h, model.up[0](model.first(x))], 1)).chunk(2, 1)
    kl = (dmu.square() / latent.p.variance[0] + (2 * dlog).exp() - 2 * dlog - 1) / 2
    torch.testing.assert_close(latent.kl[0], kl.sum((1, 2, 3)))


def test_groups_below_the_top_depend_on_the_draws() -> None:
    top, *below = make()(images(), num_samples=3).latents
    torch.testing.assert_close(top.q.mean[0], top.q.mean[1])
    for latent in below:
        for mean in (latent.p.mean, latent.q.mean):
            assert (mean[0] - mean[1]).abs().amax((1, 2, 3)).min() > 1e-4


def test_more_weights_give_a_higher_bound() -> None:
    terms = make()(images(), num_samples=512)
    log_w = terms.log_weights.detach()
    eight = log_w.unflatten(0, (-1, 8)).logsumexp(1) - math.log(8)
    assert log_w.mean() + 0.1 < eight.mean()
    assert -IWAE(num_samples=512)(terms, 0)[0] > eight.mean()


def test_kl_by_dimension_is_the_mean_over_draws() -> None:
    for latent in make()(images(), num_samples=3).latents:
        assert latent.kl_per_dim.shape == (5, *latent.z.shape[2:])
        torch.testing.assert_close(latent.kl_per_dim.sum((1, 2, 3)), latent.kl.mean(0))


def test_free_bits_are_granted_to_every_group() -> None:
    terms = make()(images(), num_samples=2)
    kls = torch.stack([latent.kl.mean() for latent in terms.latents])
    threshold = kls.sort().values[:2].mean().item()
    loss, _ = FreeBits(per="group", free_nats=threshold)(terms, 0)
    assert (kls < threshold).sum() == 1
    torch.testing.assert_close(loss, kls.clamp(min=threshold).sum() - terms.log_px.mean())


# ---- the start


def test_every_prior_starts_as_the_standard_normal_and_every_state_as_what_it_was() -> None:
    model = make(spread=0)
    for latent in model(images()).latents:
        torch.testing.assert_close(latent.p.mean, torch.zeros_like(latent.p.mean))
        torch.testing.assert_close(latent.p.stddev, torch.ones_like(latent.p.stddev))
    h = torch.randn(2, 4, 3, 2)
    torch.testing.assert_close(model.top.prior(h)[1], h)


@pytest.mark.parametrize("blocks", [[1], [4], [16]])
def test_the_last_layers_start_scaled_by_the_number_of_blocks(blocks: list[int]) -> None:
    model = make(spread=0, blocks=blocks, channels=32)
    scales = [block.residual.f[-1].weight.std() for block in model.down[0]]
    usual = nn.Conv2d(16, 32, 1).weight.std()
    torch.testing.assert_close(torch.stack(scales).mean(), usual / math.sqrt(blocks[0]), rtol=0.1, atol=0)


@pytest.mark.parametrize("condition", [None, LabelCondition(num_classes=3)])
def test_every_parameter_gets_a_gradient(condition: LabelCondition | None) -> None:
    model = make(condition=condition, blocks=[0, 2, 1], likelihood=GaussianLikelihood())
    loss, _ = ELBO(num_samples=2)(model(images(), torch.arange(5) % 3, num_samples=2), 0)
    loss.backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_parts_count_every_parameter_once() -> None:
    model = make(condition=LabelCondition(num_classes=3, embedding_dim=2))
    counted = [id(p) for modules in model.parts().values() for module in modules for p in module.parameters()]
    assert sorted(counted) == sorted(map(id, model.parameters()))


# ---- the groups below the top


class FixedBlock(TopDownBlock):
    """z ~ N(h, 2^2) is added to the state h."""

    def prior(self, h: Tensor) -> tuple[Independent, Tensor]:
        return Independent(Normal(h, torch.full_like(h, 2.0)), 3), h

    def take(self, h: Tensor, z: Tensor) -> Tensor:
        return h + z


def walk() -> HierarchicalVAE:
    """x = h_2 with h_0 = 1, h_i+1 = h_i + z_i and z_i ~ N(h_i, 4): h_1 ~ N(2, 4), h_2 ~ N(2 h_1, 4)."""
    model = make(blocks=[2], channels=1, latent_channels=1, likelihood=GaussianLikelihood())
    for i in range(2):
        model.down[0][i] = FixedBlock(
            channels=1, inner=1, latent_channels=1, kernel=1, scale=1.0, residual_posterior=False
        )
    nn.init.ones_(model.start.map)
    model.last = nn.Identity()
    return model


def test_samples_draw_every_group_from_its_own_prior() -> None:
    x = walk().sample(2000, seed=0, batch_size=300)
    assert x.mean().item() == pytest.approx(4, abs=0.1)
    assert x.var().item() == pytest.approx(4 * 4 + 4, rel=0.05)


def test_decode_takes_the_means_of_the_groups_below() -> None:
    z = torch.randn(5, *X_SHAPE)
    torch.testing.assert_close(walk().decode(z), 2 * (1 + z))


def test_reconstruction_takes_the_posterior_means_of_all_groups() -> None:
    model, x = make(), images()
    x_mean = model.reconstruct(x, batch_size=2)
    torch.testing.assert_close(x_mean, model.reconstruct(x))
    for stage in model.down:
        for block in stage:  # with next to no noise a draw is its mean
            block.posterior_net[-1].weight.data[2:] = 0
            block.posterior_net[-1].bias.data[2:] = -9
    torch.testing.assert_close(model(x).x_mean[0], model.reconstruct(x), rtol=0, atol=1e-2)


def test_encode_is_the_posterior_of_the_top_group() -> None:
    model, x = make(), images()
    q = model.encode(x)
    assert (q.batch_shape, q.event_shape) == ((5,), model.latent_shape)
    torch.testing.assert_close(q.mean, model(x).latents[0].q.mean[0])


# ---- sizes, likelihoods and labels


@pytest.mark.parametrize(
    ("x_shape", "blocks", "top"),
    [
        ((1, 8, 8), [1, 1, 1, 1], (1, 1)),
        ((1, 28, 28), [0, 1, 1], (7, 7)),
        ((3, 32, 32), [0, 0, 1, 1], (4, 4)),
        ((2, 9, 14), [1, 1, 1], (2, 3)),
    ],
)
def test_any_image_size(x_shape: tuple[int, int, int], blocks: list[int], top: tuple[int, int]) -> None:
    model = make(x_shape=x_shape, blocks=blocks, spread=0)
    assert model.latent_shape == (2, *top)
    terms = model(images(2, x_shape), num_samples=2)
    assert len(terms.latents) == sum(blocks)
    assert torch.isfinite(terms.elbo).all()
    assert model.sample(3).shape == (3, *x_shape)


def test_a_likelihood_of_several_numbers_per_channel() -> None:
    model = make(likelihood=DiscretizedLogisticMixtureLikelihood(levels=17))
    assert torch.isfinite(model.elbo(images().mul(16).round() / 16)).all()


def test_a_label_changes_priors_posteriors_and_likelihood() -> None:
    model = make(condition=LabelCondition(num_classes=3), spread=0.6)
    x, y = images(), torch.arange(5) % 3
    torch.manual_seed(3)
    a = model(x, y)
    torch.manual_seed(3)
    b = model(x, (y + 1) % 3)
    for first, second in zip(a.latents, b.latents, strict=True):
        assert (first.q.mean - second.q.mean).abs().amax((0, 2, 3, 4)).min() > 1e-4
        assert (first.p.mean - second.p.mean).abs().amax((0, 2, 3, 4)).min() > 1e-4
    z = torch.randn(5, *model.latent_shape)
    assert (model.decode(z, y) - model.decode(z, (y + 1) % 3)).abs().amax((1, 2, 3)).min() > 1e-5
    assert model.sample(4).shape == (4, *X_SHAPE)
    with pytest.raises(ValueError, match="give context=y"):
        model(x)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": []}, "blocks must be whole numbers"),
        ({"blocks": [1, 0]}, "the last of at least 1"),
        ({"blocks": [-1, 1]}, "blocks must be whole numbers"),
        ({"blocks": [1, 1, 1, 1]}, r"blocks must have at most 3 entries for images of 6x5.*\[1, 1, 1, 1\]"),
        ({"channels": 0}, "channels must be a whole number of at least 1"),
        ({"latent_channels": 0}, "latent_channels must be a whole number of at least 1"),
        ({"bottleneck": 0}, "bottleneck must be a number above 0"),
    ],
)
def test_impossible_choices_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**wrong)


# ---- flows in the posterior


def test_flows_change_the_posterior_and_not_the_model() -> None:
    """log p(x) estimated by importance weights is the same whichever q the draws come from, with a flow or without."""
    small = dict(x_shape=(1, 2, 2), blocks=[1, 1], latent_channels=1)
    model = make(posterior_flow=2, spread=0.2, **small).double()
    x = images(3, (1, 2, 2)).double()
    torch.manual_seed(2)
    with_flow = model(x, num_samples=6000)
    for block in model.modules():
        if isinstance(block, TopDownBlock):
            block.flow = None
    torch.manual_seed(3)
    without = model(x, num_samples=6000)
    assert not torch.allclose(with_flow.elbo.mean(0), without.elbo.mean(0), atol=1e-3)
    a, b = (terms.log_weights.logsumexp(0) - math.log(6000) for terms in (with_flow, without))
    torch.testing.assert_close(a, b, rtol=0, atol=0.05)


def test_the_density_of_a_flow_is_that_of_the_point_by_itself() -> None:
    model = make(posterior_flow=2).double()
    terms = model(images(2).double(), num_samples=3)
    for latent in terms.latents:
        assert latent.q.batch_shape == (3, 2)
        u, log_det = latent.z.flatten(2), 0.0
        for bijection in reversed(latent.q.bijections):
            jacobian = torch.func.vmap(
                torch.func.vmap(torch.func.jacrev(lambda v, f=bijection: f.inv.call_and_ladj(v)[0]))
            )
            log_det = log_det + torch.linalg.slogdet(jacobian(u)).logabsdet
            u = bijection.inv.call_and_ladj(u)[0]
        torch.testing.assert_close(latent.log_qz, latent.q.base.log_prob(u) + log_det)


def test_every_parameter_of_the_flows_gets_a_gradient() -> None:
    model = make(posterior_flow=2)
    ELBO()(model(images()), 0)[0].backward()
    names = [name for name, p in model.named_parameters() if ".flow." in name]
    assert names
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if ".flow." in name)
    with pytest.raises(ValueError, match="posterior_flow"):
        make(posterior_flow=-1)
