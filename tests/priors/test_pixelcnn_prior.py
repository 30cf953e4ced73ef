"""The autoregressive prior of maps: of real numbers and of codes."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import VAE, build_vae
from vaelab.networks import ConvDecoder, ConvEncoder, GatedPixelCNN
from vaelab.objectives import ELBO
from vaelab.priors import PixelCNNPrior
from vaelab.samplers import GaussianSampler, Sampler, VectorQuantizer

NETWORK = partial(GatedPixelCNN, channels=6, layers=2, first_kernel=3)
K, Q = 3, 2


class Book(nn.Module):
    """Q codes of K at every position, each a number of its own: z = (e_0[c_0], e_1[c_1])."""

    def __init__(self, height: int = 1, width: int = 2, depth: int = Q) -> None:
        super().__init__()
        self.num_codes, self.code_shape = K, (depth, height, width)
        self.vectors = nn.Parameter(torch.tensor([-1.5, 0.0, 2.0]).double())

    def codes(self, z: Tensor) -> Tensor:
        return (z.unsqueeze(-1) - self.vectors).abs().argmin(-1)

    def embed(self, codes: Tensor) -> Tensor:
        return self.vectors[codes]


def posterior(x: Tensor) -> Normal:
    raise AssertionError("this prior asks for no posterior")


def gaussian(shape: tuple[int, int, int] = (2, 3, 4)) -> PixelCNNPrior:
    torch.manual_seed(0)
    prior = PixelCNNPrior(latent_shape=shape, network=NETWORK)
    prior.attach(posterior, (1, 8, 8), GaussianSampler(in_shape=(2, *shape[1:]), latent_shape=shape))
    return prior.double()


def coded(book: Book) -> PixelCNNPrior:
    torch.manual_seed(0)
    prior = PixelCNNPrior(latent_shape=book.code_shape, network=NETWORK, width=8)
    prior.attach(posterior, (1, 8, 8), book)
    with torch.no_grad():
        for p in prior.parameters():
            p *= 3  # away from the uniform distribution
    return prior.double()


# ---- real numbers


def test_density_is_a_product_of_gaussians_of_earlier_positions() -> None:
    """By the change of variables u_i = (z_i - mu_i) / sigma_i: a triangular map with 1 / sigma on its diagonal."""
    prior, z = gaussian(), torch.randn(2, 3, 4).double()

    def standardised(z: Tensor) -> Tensor:
        mean, log_std = prior.conditionals.network(z.view(1, 2, 3, 4)).squeeze(0).chunk(2, 0)
        return ((z.view(2, 3, 4) - mean) / log_std.exp()).movedim(0, -1).flatten()  # in raster order

    in_order = z.movedim(0, -1).flatten()
    jacobian = torch.autograd.functional.jacobian(
        lambda flat: standardised(flat.view(3, 4, 2).movedim(-1, 0).flatten()), in_order
    )
    assert torch.equal(jacobian.triu(1), torch.zeros_like(jacobian))
    assert jacobian.tril(-2).any()
    expected = Normal(0.0, 1.0).log_prob(standardised(z)).sum() + jacobian.slogdet().logabsdet
    torch.testing.assert_close(prior().log_prob(z), expected)


def test_axes_of_draws_and_densities() -> None:
    p = gaussian()()
    assert (p.batch_shape, p.event_shape) == ((), (2, 3, 4))
    z = p.sample((5, 6))
    assert z.shape == (5, 6, 2, 3, 4)
    assert p.sample().shape == (2, 3, 4)
    log_prob = p.log_prob(z)
    assert log_prob.shape == (5, 6)
    torch.testing.assert_close(log_prob[3, 2], p.log_prob(z[3, 2]))


def test_draws_are_those_of_the_density() -> None:
    """E_p[p'(z) / p(z)] = 1 for another density p', and the standardised draws are standard normal."""
    prior = gaussian((1, 2, 3))
    other = copy.deepcopy(prior)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        z = prior().sample((10_000,))
        ratio = (other().log_prob(z) - prior().log_prob(z)).exp()
        mean, log_std = prior.conditionals.network(z).chunk(2, 1)
    assert ratio.mean().item() == pytest.approx(1, abs=5 * ratio.std().item() / 100)
    assert ratio.std() > 0.01
    u = ((z - mean) / log_std.exp()).flatten(1)
    torch.testing.assert_close(u.T.cov(), torch.eye(6).double(), rtol=0, atol=0.06)
    torch.testing.assert_close(u.mean(0), torch.zeros(6).double(), rtol=0, atol=0.05)


def test_weights_of_half_precision_score_numbers_of_single_precision() -> None:
    prior = gaussian((1, 2, 3))
    z = prior().sample((4,)).float()
    log_prob = prior.bfloat16()().log_prob(z)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, prior.float()().log_prob(z), rtol=0.02, atol=0.02)


# ---- codes


def all_codes(shape: tuple[int, ...]) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(K)] * math.prod(shape)).view(-1, *shape)


@pytest.mark.parametrize("book", [Book(1, 2), Book(2, 2, depth=1), Book(1, 1, depth=3)], ids=["1x2x2", "2x2", "1x1x3"])
def test_probabilities_of_all_codes_sum_to_one_and_they_are_drawn_that_often(book: Book) -> None:
    p, count = coded(book)(), 20_000
    codes = all_codes(book.code_shape)
    probabilities = p.log_prob(book.embed(codes)).exp().detach()
    torch.testing.assert_close(probabilities.sum(), torch.ones(()).double())
    assert probabilities.max() > 3 * probabilities.mean()
    torch.manual_seed(1)
    drawn = book.codes(p.sample((count,))).flatten(1)
    places = (drawn * K ** torch.arange(drawn.shape[1] - 1, -1, -1)).sum(1)
    frequencies = torch.bincount(places, minlength=len(codes)) / count
    assert ((frequencies - probabilities).abs() < 5 * (probabilities * (1 - probabilities) / count).sqrt() + 1e-4).all()


def test_codes_depend_on_each_other_within_a_position_and_across() -> None:
    """The probabilities are no product of those of single codes, however two codes are picked."""
    book = Book(1, 2)
    p = coded(book)().log_prob(book.embed(all_codes(book.code_shape))).exp().detach().view([K] * 4)
    for i in range(4):
        for j in range(i + 1, 4):
            pair = p.sum([a for a in range(4) if a not in (i, j)])
            assert (pair - pair.sum(1, keepdim=True) * pair.sum(0, keepdim=True)).abs().max() > 1e-4, (i, j)


def test_no_gradient_reaches_the_codebook_and_every_parameter_of_the_prior_learns() -> None:
    book = Book(3, 4)
    prior = coded(book)
    z = book.embed(torch.randint(K, (5, Q, 3, 4)))
    prior().log_prob(z).sum().backward()
    assert book.vectors.grad is None
    for name, p in prior.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name
    assert not any(p is book.vectors for p in prior.parameters())


# ---- in a model


def vae(sampler: Callable[..., Sampler] = GaussianSampler) -> VAE:
    torch.manual_seed(0)
    return build_vae(
        x_shape=(1, 8, 8),
        latent_dim=2,
        latent_map=True,
        encoder=partial(ConvEncoder, channels=[4]),
        sampler=sampler,
        prior=partial(PixelCNNPrior, network=NETWORK),
        decoder=partial(ConvDecoder, channels=[4]),
        likelihood=BernoulliLikelihood(),
    )


def test_in_a_model_every_parameter_learns_and_the_bound_is_sampled() -> None:
    model, x = vae(), torch.rand(5, 1, 8, 8)
    terms = model(x, num_samples=3)
    (latent,) = terms.latents
    torch.testing.assert_close(latent.kl, latent.log_qz - latent.log_pz)
    loss, _ = ELBO()(terms, 0)
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name
    assert model.sample(3).shape == (3, 1, 8, 8)


def test_with_a_codebook_the_kl_is_what_the_codes_cost() -> None:
    model, x = vae(partial(VectorQuantizer, num_codes=5)).eval(), torch.rand(3, 1, 8, 8)
    terms = model(x)
    codes = model.encode(x).codes
    log_prob = model.prior.conditionals.log_prob(codes)
    torch.testing.assert_close(terms.kl, -log_prob.expand(1, 3))
    assert terms.is_bound
    z = model.draw_latents(4)
    torch.testing.assert_close(model.sampler.embed(model.sampler.codes(z)), z)
    terms.kl.sum().backward()
    assert all(p.grad is not None for p in model.prior.parameters())
    assert not any(p.grad is not None for p in (*model.encoder.parameters(), *model.sampler.parameters()))


def test_a_copied_model_has_a_prior_of_its_own() -> None:
    model = vae()
    copied = copy.deepcopy(model)
    copied.load_state_dict(model.state_dict())
    z = torch.randn(4, *model.latent_shape)
    before = model.prior().log_prob(z)
    for p in copied.parameters():
        nn.init.zeros_(p)
    torch.testing.assert_close(model.prior().log_prob(z), before)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs latents that are a map \(D, h, w\), but they are \(20,\); choose"):
        PixelCNNPrior(latent_shape=(20,), network=NETWORK)
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, but is 0"):
        PixelCNNPrior(latent_shape=(2, 3, 4), network=NETWORK, width=0)
    prior = PixelCNNPrior(latent_shape=(2, 3, 4), network=NETWORK)
    with pytest.raises(ValueError, match=r"call attach\(posterior, x_shape\) first"):
        prior()
    for space in ("Euclidean space", "a codebook"):
        prior.check_space(space, "")
    with pytest.raises(ValueError, match="but the sampler draws z on the sphere; choose model/prior=uniform_sphere"):
        prior.check_space("the sphere", "model/prior=uniform_sphere")
