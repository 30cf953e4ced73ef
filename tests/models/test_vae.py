"""The flat VAE: axes, number ranges, randomness and refusals."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaelab.likelihoods import BernoulliLikelihood, GaussianLikelihood, Likelihood
from vaelab.models import VAE
from vaelab.networks import ConvDecoder, ConvEncoder, Decoder, MLPDecoder, MLPEncoder
from vaelab.priors import Prior, StandardNormalPrior
from vaelab.samplers import DeterministicSampler, GaussianSampler, Sampler

X_SHAPE, D = (1, 4, 6), 3


class Echo(Decoder):
    """Latents of as many dimensions as the image has pixels, as the image."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.in_shape, self.out_shape = (torch.Size(shape).numel(),), shape

    def forward(self, z: Tensor) -> Tensor:
        return z.unflatten(-1, self.out_shape)


class FarAwayPrior(Prior):
    """N(5, 0.1^2)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_shape = (latent_dim,)

    def forward(self) -> Independent:
        return Independent(Normal(torch.full(self.latent_shape, 5.0), torch.full(self.latent_shape, 0.1)), 1)


def make(likelihood: Likelihood | None = None, *, sampler: type[Sampler] = GaussianSampler, **more: object) -> VAE:
    torch.manual_seed(0)
    return VAE(
        encoder=MLPEncoder(in_shape=X_SHAPE, hidden=[8], activation="tanh"),
        sampler=sampler(in_shape=(8,), latent_shape=(D,)),
        prior=StandardNormalPrior(latent_shape=(D,)),
        decoder=MLPDecoder(in_shape=(D,), out_shape=X_SHAPE, hidden=[8], activation="tanh"),
        likelihood=likelihood or BernoulliLikelihood(),
        **more,
    ).eval()


def make_echo(prior: Prior | None = None, sampler: type[Sampler] = GaussianSampler) -> VAE:
    torch.manual_seed(0)
    pixels = torch.Size(X_SHAPE).numel()
    return VAE(
        encoder=MLPEncoder(in_shape=X_SHAPE, hidden=[8]),
        sampler=sampler(in_shape=(8,), latent_shape=(pixels,)),
        prior=prior or StandardNormalPrior(latent_shape=(pixels,)),
        decoder=Echo(X_SHAPE),
        likelihood=GaussianLikelihood(scale="fixed", sigma=0.5),
    ).eval()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *X_SHAPE, generator=torch.Generator().manual_seed(1))


def inputs_of(module: nn.Module) -> list[Tensor]:
    """Returns a list that fills with what `module` is called on."""
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    return seen


# ---- terms


@pytest.mark.parametrize(("num_samples", "batch"), [(3, 5), (5, 3), (1, 4), (4, 1)])
def test_terms_tell_draws_and_examples_apart(num_samples: int, batch: int) -> None:
    model, x = make_echo(), images(batch)
    terms = model(x, num_samples=num_samples)
    (latent,), q = terms.latents, model.encode(x)
    assert latent.z.shape == (num_samples, batch, 24)
    for k in range(num_samples):
        for b in range(batch):
            z = latent.z[k, b]
            log_px = Normal(z, 0.5).log_prob(x[b].flatten()).sum()
            torch.testing.assert_close(terms.log_px[k, b], log_px)
            torch.testing.assert_close(latent.log_pz[k, b], Normal(0.0, 1.0).log_prob(z).sum())
            torch.testing.assert_close(latent.log_qz[k, b], Normal(q.mean[b], q.stddev[b]).log_prob(z).sum())


def test_an_example_changes_its_own_terms_only() -> None:
    model, x = make(), images(5)
    changed = x.clone()
    changed[2] = 1 - changed[2]
    torch.manual_seed(3)
    before = model(x, num_samples=4).elbo
    torch.manual_seed(3)
    after = model(changed, num_samples=4).elbo
    others = [0, 1, 3, 4]
    torch.testing.assert_close(after[:, others], before[:, others])
    assert (after[:, 2] != before[:, 2]).all()


def test_all_draws_are_decoded_in_one_call_and_encoded_once() -> None:
    model = make()
    decoded, encoded = inputs_of(model.decoder), inputs_of(model.encoder)
    model(images(5), num_samples=7)
    assert [len(z) for z in decoded] == [35]
    assert [len(x) for x in encoded] == [5]


def test_draws_are_the_posterior_s() -> None:
    model = make()
    terms = model(images(2), num_samples=4000)
    (latent,) = terms.latents
    standardised = (latent.z - latent.q.mean) / latent.q.stddev
    torch.testing.assert_close(standardised.mean(0), torch.zeros(2, D), rtol=0, atol=4 / 4000**0.5)
    torch.testing.assert_close(standardised.std(0), torch.ones(2, D), rtol=0, atol=4 / 8000**0.5)


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(), GaussianLikelihood(scale="learned")])
def test_terms_are_float32_under_bfloat16_autocast(likelihood: Likelihood) -> None:
    torch.manual_seed(0)
    model = VAE(
        encoder=ConvEncoder(in_shape=(1, 8, 8), channels=[4]),
        sampler=GaussianSampler(in_shape=(4, 4, 4), latent_shape=(2,)),
        prior=StandardNormalPrior(latent_shape=(2,)),
        decoder=ConvDecoder(in_shape=(2,), out_shape=(1, 8, 8), channels=[4]),
        likelihood=likelihood,
    )
    emitted: list[torch.dtype] = []
    model.decoder.register_forward_hook(lambda _, args, out: emitted.append(out.dtype))
    x = torch.rand(3, 1, 8, 8)
    torch.manual_seed(3)
    exact = model(x, num_samples=2)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(x, num_samples=2)
        loss = -terms.elbo.mean()
    assert emitted == [torch.float32, torch.bfloat16]
    latent = terms.latents[0]
    for term in (terms.log_px, terms.kl, terms.elbo, terms.log_weights, latent.z, latent.log_pz, latent.log_qz, loss):
        assert term.dtype == torch.float32
    torch.testing.assert_close(terms.log_px, exact.log_px, rtol=0.02, atol=0.5)
    torch.testing.assert_close(terms.kl, exact.kl, rtol=0.05, atol=0.02)


def test_a_model_in_float64_computes_in_float64() -> None:
    model, x = make().double(), images()
    assert model.dtype == torch.float64
    assert model.elbo(x).dtype == model.reconstruct(x).dtype == model.sample(2).dtype == torch.float64
    assert model.decode(torch.zeros(2, D)).dtype == torch.float64
    terms = model(x.double())
    assert terms.log_px.dtype == terms.kl.dtype == terms.log_weights.dtype == torch.float64
    torch.testing.assert_close(model.reconstruct(x).float(), make().reconstruct(x))


# ---- what the encoder sees, and what the likelihood is asked about


def test_normalisation_changes_what_the_encoder_sees_and_nothing_else() -> None:
    plain, normalised, x = make(), make(mean=[0.3], std=[0.2]), images()
    seen = inputs_of(normalised.encoder)
    q = normalised.encode(x)
    torch.testing.assert_close(seen[0], (x - 0.3) / 0.2)
    torch.testing.assert_close(q.mean, plain.sampler(plain.encoder((x - 0.3) / 0.2)).mean)
    z = torch.randn(4, D)
    torch.testing.assert_close(normalised.decode(z), plain.decode(z))
    terms = normalised(x, num_samples=2)
    params = plain.decoder(terms.latents[0].z.flatten(0, 1)).unflatten(0, (2, 5))
    torch.testing.assert_close(terms.log_px, plain.likelihood.log_prob(params, x))


def test_every_channel_has_its_own_normalisation() -> None:
    model = VAE(
        encoder=MLPEncoder(in_shape=(3, 2, 2), hidden=[4]),
        sampler=GaussianSampler(in_shape=(4,), latent_shape=(2,)),
        prior=StandardNormalPrior(latent_shape=(2,)),
        decoder=MLPDecoder(in_shape=(2,), out_shape=(3, 2, 2), hidden=[4]),
        likelihood=BernoulliLikelihood(),
        mean=[0.1, 0.2, 0.3],
        std=[1.0, 2.0, 4.0],
    )
    seen = inputs_of(model.encoder)
    x = torch.rand(2, 3, 2, 2)
    model(x)
    for c, (mean, std) in enumerate([(0.1, 1.0), (0.2, 2.0), (0.3, 4.0)]):
        torch.testing.assert_close(seen[0][:, c], (x[:, c] - mean) / std)


def test_normalisation_travels_with_the_weights() -> None:
    model, other = make(mean=[0.3], std=[0.2]), make(mean=[0.5], std=[0.5])
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.reconstruct(images()), model.reconstruct(images()))


# ---- encode, decode, reconstruct


def test_encode_returns_one_posterior_per_image() -> None:
    q = make().encode(images(5))
    assert (q.batch_shape, q.event_shape) == ((5,), (D,))


def test_decode_is_the_mean_of_the_likelihood() -> None:
    model, z = make(), torch.randn(4, D)
    torch.testing.assert_close(model.decode(z), model.decoder(z).sigmoid())
    assert (model.p_x(z).batch_shape, model.p_x(z).event_shape) == ((4,), X_SHAPE)
    gaussian = make(GaussianLikelihood(sigma=0.5))
    torch.testing.assert_close(gaussian.decode(z), gaussian.decoder(z))


def test_reconstruction_decodes_the_posterior_mean_without_noise() -> None:
    model, x = make(), images()
    state = torch.get_rng_state()
    first = model.reconstruct(x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first, model.decode(model.encode(x).mean).detach())
    torch.manual_seed(9)
    assert torch.equal(model.reconstruct(x), first)
    assert not first.requires_grad


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_chunks_change_no_reconstruction_and_no_sample(batch_size: int) -> None:
    model, x = make(), images(5)
    torch.testing.assert_close(model.reconstruct(x, batch_size=batch_size), model.reconstruct(x))
    torch.testing.assert_close(model.sample(5, seed=1, batch_size=batch_size), model.sample(5, seed=1))


# ---- the ELBO


def test_elbo_is_averaged_over_draws_for_every_image() -> None:
    model, x = make(), images(5)
    torch.manual_seed(3)
    elbo = model.elbo(x, num_samples=4)
    torch.manual_seed(3)
    terms = model(x, num_samples=4)
    assert elbo.shape == (5,)
    torch.testing.assert_close(elbo, (terms.log_px - terms.kl).mean(0))
    assert not elbo.requires_grad


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_chunks_change_no_elbo(batch_size: int) -> None:
    model, x = make_echo(sampler=DeterministicSampler), images(5)  # without noise chunks must agree exactly
    elbo = model.elbo(x, num_samples=2, batch_size=batch_size)
    torch.testing.assert_close(elbo, model.elbo(x))


def test_elbo_decodes_no_more_at_once_than_batch_size() -> None:
    model = make()
    decoded = inputs_of(model.decoder)
    model.elbo(images(11), num_samples=3, batch_size=10)
    assert max(len(z) for z in decoded) <= 10
    assert sum(len(z) for z in decoded) == 33


# ---- samples


def test_samples_are_repeatable_and_leave_the_global_random_state_alone() -> None:
    model = make()
    state = torch.get_rng_state()
    first = model.sample(6, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(model.sample(6, seed=1), first)
    assert not torch.equal(model.sample(6, seed=2), first)
    assert not torch.equal(model.sample(6), model.sample(6))
    assert first.shape == (6, *X_SHAPE)


def test_samples_come_from_the_model_s_own_prior() -> None:
    samples = make_echo(prior=FarAwayPrior(24)).sample(50, seed=0)
    assert samples.mean().item() == pytest.approx(5, abs=0.02)
    assert samples.std().item() == pytest.approx(0.1, abs=0.01)


def test_samples_show_the_mean_unless_asked_for_pixels() -> None:
    model = make_echo()
    means, draws = model.sample(200, seed=0), model.sample(200, seed=0, mean=False)
    assert (draws - means).std().item() == pytest.approx(0.5, abs=0.03)  # sigma of the likelihood
    binary = make().sample(20, seed=0, mean=False)
    assert binary.unique().tolist() == [0, 1]


# ---- refusals


@pytest.mark.parametrize("method", ["encode", "reconstruct", "elbo"])
@pytest.mark.parametrize("shape", [(2, 1, 6, 4), (2, 3, 4, 6), (1, 4, 6), (2, 24)])
def test_images_of_another_shape_are_refused(method: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must be \(B, 1, 4, 6\), but are \(" + ", ".join(map(str, shape))):
        getattr(make(), method)(torch.rand(shape))


@pytest.mark.parametrize("method", ["encode", "reconstruct", "elbo"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_images_are_refused(method: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"floating-point.*{dtype}"):
        getattr(make(), method)(torch.ones(2, *X_SHAPE, dtype=dtype))


@pytest.mark.parametrize("shape", [(2, 4), (D,), (2, 1, D)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"latents must be \(B, 3\)"):
        make().decode(torch.zeros(shape))
