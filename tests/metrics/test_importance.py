"""The streamed k-sample bound."""

import math
from functools import partial

import pytest
import torch
from small_models import small_vae
from torch.distributions import Independent, Normal

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.metrics.importance import importance_bound
from vaelab.models import Latent, Model, Terms
from vaelab.networks import LabelCondition
from vaelab.numerics import seeded
from vaelab.samplers import DeterministicSampler, GaussianSampler, LaplaceSampler, PlanarFlowSampler

CPU = torch.device("cpu")
WEIGHT = torch.tensor([[1.0, 0.5], [0.5, -1.0], [0.8, 0.0]], dtype=torch.float64)
NOISE = 0.7


class Linear(Model):
    """p(z) = N(0, I), p(x|z) = N(W z, 0.7^2 I) and a posterior that is off and too wide; counts what it decodes."""

    def __init__(self, *, shift: float = 0.3, widening: float = 1.3) -> None:
        super().__init__(x_shape=(3,), latent_shape=(2,), likelihood=BernoulliLikelihood())
        self.shift, self.widening = shift, widening
        self.rows: list[int] = []
        self.draws = 0

    def forward(self, x, context=None, *, num_samples=1):
        self.rows.append(num_samples * len(x))
        self.draws += num_samples * len(x)
        precision = torch.eye(2).double() + WEIGHT.T @ WEIGHT / NOISE**2  # diagonal: the columns are orthogonal
        mean = x @ WEIGHT / NOISE**2 / precision.diagonal()
        q = Independent(Normal(mean + self.shift, self.widening * precision.diagonal().rsqrt()), 1)
        z = q.sample((num_samples,))
        p = Independent(Normal(torch.zeros(2).double(), torch.ones(2).double()), 1)
        return Terms(log_px=Independent(Normal(z @ WEIGHT.T, NOISE), 1).log_prob(x), latents=(Latent(z=z, q=q, p=p),))


def log_evidence(x):
    covariance = WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(3).double()
    return torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(x)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return 1.5 * torch.randn(4, 3, dtype=torch.float64)


@pytest.fixture
def images():
    return torch.bernoulli(torch.full((5, 1, 4, 4), 0.4), generator=torch.Generator().manual_seed(0))


def test_many_draws_find_the_evidence_of_a_linear_gaussian_model(x):
    torch.manual_seed(1)
    bounds = torch.stack([importance_bound(Linear(), x, k=500) for _ in range(40)])
    errors = bounds.std(0) / math.sqrt(len(bounds))
    assert (errors < 0.01).all()
    bias = bounds.var(0) / 2  # of a logarithm of a mean, to first order: the bound lies below
    assert ((bounds.mean(0) + bias - log_evidence(x)).abs() < 4 * errors).all()


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 50, 1000])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_exactly_k_draws_of_every_image_and_never_more_than_rows_at_once(x, k, rows):
    model, finished = Linear(), []
    importance_bound(model, x, k=k, rows=rows, done=finished.append)
    assert model.draws == k * len(x) == sum(finished)
    assert max(model.rows) <= rows


def test_every_image_gets_its_own_bound_whatever_the_chunks(x):
    """With the exact posterior every weight is the evidence, so that a mix-up of images or of k would show."""
    for k, rows in ((1, 1), (5, 3), (5, 12), (30, 1000)):
        bound = importance_bound(Linear(shift=0, widening=1), x, k=k, rows=rows)
        torch.testing.assert_close(bound, log_evidence(x), atol=1e-9, rtol=0)


def test_a_few_lines_of_its_own_find_the_same_bound(images):
    """The same noise: that of one image at a time."""
    model, k = small_vae(), 5000
    with seeded(3, CPU):
        bound = importance_bound(model, images, k=k, rows=700)
    with seeded(3, CPU), torch.no_grad():
        for image, found in zip(images, bound, strict=True):
            q = model.encode(image[None])
            z = q.mean + q.stddev * torch.randn(k, 1, 3)
            logits = model.decoder(z.flatten(0, 1)).double()
            log_px = torch.distributions.Bernoulli(logits=logits).log_prob(image.double()).sum((1, 2, 3))
            log_pz = Normal(0.0, 1.0).log_prob(z[:, 0].double()).sum(1)
            log_qz = Normal(q.mean.double(), q.stddev.double()).log_prob(z[:, 0].double()).sum(1)
            own = (log_px + log_pz - log_qz).logsumexp(0) - math.log(k)
            assert found.item() == pytest.approx(own.item(), abs=1e-3)


def test_more_draws_never_loosen_the_bound(x):
    torch.manual_seed(0)
    many = x[:1].expand(3000, -1)
    means, errors = [], []
    for k in (1, 2, 5, 20, 100):
        bounds = importance_bound(Linear(), many, k=k, rows=10_000)
        means.append(bounds.mean().item()), errors.append(bounds.std().item() / math.sqrt(len(bounds)))
    for before, after, error in zip(means, means[1:], errors[1:], strict=False):
        assert after > before - 3 * error
    assert means[0] < means[-1] < log_evidence(x[:1]).item() + 3 * errors[-1]


def test_weights_far_below_what_floats_hold_are_summed(x):
    class Faint(Linear):
        def forward(self, x, context=None, *, num_samples=1):
            terms = super().forward(x, num_samples=num_samples)
            return Terms(log_px=terms.log_px - 1e5, latents=terms.latents)

    with seeded(0, CPU):
        usual = importance_bound(Linear(), x, k=50, rows=20)
    with seeded(0, CPU):
        faint = importance_bound(Faint(), x, k=50, rows=20)
    torch.testing.assert_close(faint + 1e5, usual, atol=1e-6, rtol=0)


def test_labels_go_with_their_images(images):
    model, y = small_vae(condition=LabelCondition(num_classes=4)), torch.tensor([0, 1, 2, 3, 0])
    together = importance_bound(model, images, y, k=3000)
    alone = torch.cat([importance_bound(model, a[None], b[None], k=3000) for a, b in zip(images, y, strict=True)])
    torch.testing.assert_close(together, alone, atol=0.1, rtol=0)
    wrong = importance_bound(model, images, y.flip(0), k=3000)
    assert (together - wrong).abs().max() > 0.2


def test_refusals(images):
    for options, words in (({"k": 0}, "k must be"), ({"rows": 0}, "rows must be")):
        with pytest.raises(ValueError, match=words):
            importance_bound(small_vae(), images, **options)
    with pytest.raises(ValueError, match="no density"):
        importance_bound(small_vae(DeterministicSampler), images)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [GaussianSampler, LaplaceSampler, partial(PlanarFlowSampler, steps=1)])
@pytest.mark.parametrize("condition", [None, LabelCondition(num_classes=4)])
def test_compiled_it_is_the_same_number(sampler, condition, images):
    model, y = small_vae(sampler, condition=condition), torch.tensor([0, 1, 2, 3, 0])
    found = []
    for _ in range(2):
        with seeded(1, CPU):
            found.append(importance_bound(model, images, y, k=70, rows=30))
        model.compile_scoring()
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    assert torch.isfinite(importance_bound(model, images[:2], y[:2], k=3)).all()  # of another size, too
