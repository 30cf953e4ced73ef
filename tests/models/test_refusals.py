"""What the parts and the model refuse, and faults that once went unnoticed."""

import math

import pytest
import torch

from vaelab import checks
from vaelab.likelihoods import BernoulliLikelihood, GaussianLikelihood
from vaelab.metrics import Window
from vaelab.models import VAE
from vaelab.networks import MLPDecoder, MLPEncoder, ResNetDecoder, ResNetEncoder
from vaelab.networks.base import norm_layer
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import Delta, GaussianSampler
from vaelab.schedules import Exponential, Linear


def make(**more):
    torch.manual_seed(0)
    parts = dict(
        encoder=MLPEncoder(in_shape=(1, 4, 6), hidden=[8]),
        sampler=GaussianSampler(in_shape=(8,), latent_shape=(3,)),
        prior=StandardNormalPrior(latent_shape=(3,)),
        decoder=MLPDecoder(in_shape=(3,), out_shape=(1, 4, 6), hidden=[8]),
        likelihood=BernoulliLikelihood(),
    )
    return VAE(**{**parts, **more}).eval()


@pytest.mark.parametrize("channels", [2, 4, 7, 8, 9, 16])
def test_group_norm_keeps_what_a_map_of_one_place_holds(channels):
    torch.manual_seed(0)
    x = torch.randn(3, channels, 1, 1)
    assert norm_layer("group", channels, spatial=True)(x).flatten(1).std(0).max() > 0.1


def test_a_resnet_that_ends_in_one_place_still_sees_its_image():
    torch.manual_seed(0)
    y = ResNetEncoder(in_shape=(1, 4, 4), channels=[4, 8])(torch.rand(3, 1, 4, 4))
    assert y.std(0).max() > 1e-3


@pytest.mark.parametrize(
    "make_it",
    [
        lambda: ResNetEncoder(in_shape=(1, 8, 8), channels=[]),
        lambda: ResNetDecoder(in_shape=(2,), out_shape=(1, 8, 8), channels=[]),
    ],
)
def test_a_resnet_without_stages_is_refused(make_it):
    with pytest.raises(ValueError, match="channels needs at least one stage"):
        make_it()


@pytest.mark.parametrize("check", [checks.positive, checks.at_least_zero, checks.fraction])
@pytest.mark.parametrize("value", ["0.00025d", None])
def test_a_number_that_is_none_is_refused(check, value):
    with pytest.raises(ValueError, match=f"but is {value!r}"):
        check("lr", value)


def test_one_number_where_a_list_belongs_is_refused():
    with pytest.raises(ValueError, match="channels must be a list of whole numbers, but is 32"):
        checks.positive_ints("channels", 32)


def test_a_whole_number_will_do_as_sigma():
    likelihood = GaussianLikelihood(scale="optimal", sigma=1).train()
    assert likelihood.log_prob(torch.zeros(1, 2, 1, 2, 2), torch.ones(2, 1, 2, 2)).isfinite().all()
    assert GaussianLikelihood(scale="fixed", sigma=1).sigma.is_floating_point()


def test_log_prob_agrees_with_the_distribution_without_an_axis_of_draws():
    logits, x = torch.randn(4, 2, 3, 5), torch.rand(4, 2, 3, 5)
    torch.testing.assert_close(BernoulliLikelihood().log_prob(logits, x), BernoulliLikelihood()(logits).log_prob(x))


def test_whole_numbers_will_do_as_normalisation():
    model = make(mean=[0], std=[1])
    assert model.dtype == torch.float32
    assert model.sample(2).shape == (2, 1, 4, 6)


@pytest.mark.parametrize("wrong", [{"mean": [0.1, 0.2]}, {"std": [0.0]}, {"std": [math.nan]}])
def test_an_impossible_normalisation_is_refused(wrong):
    with pytest.raises(ValueError, match=r"mean needs|std must"):
        make(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prior": StandardNormalPrior(latent_shape=(1,))},
        {"decoder": MLPDecoder(in_shape=(2,), out_shape=(1, 4, 6), hidden=[8])},
        {"decoder": MLPDecoder(in_shape=(3,), out_shape=(1, 4, 1), hidden=[8]), "likelihood": GaussianLikelihood()},
    ],
)
def test_parts_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="other parts need"):
        make(**wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m.elbo(x, num_samples=0),
        lambda m, x: m.elbo(x, batch_size=0),
        lambda m, x: m(x, num_samples=0),
        lambda m, x: m.reconstruct(x, batch_size=0),
        lambda m, x: m.sample(-1),
        lambda m, x: m.sample(2, batch_size=0),
    ],
)
def test_impossible_counts_are_refused(call):
    with pytest.raises(ValueError, match="must be a whole number"):
        call(make(), torch.rand(2, 1, 4, 6))


def test_data_outside_the_support_are_refused():
    with pytest.raises(ValueError, match="divide 8-bit images"):
        make().elbo(255 * torch.rand(2, 1, 4, 6))


def test_a_draw_by_sample_carries_no_gradient():
    assert not Delta(torch.randn(6, 2, requires_grad=True) * 2, 1).sample((3,)).requires_grad


def test_terms_in_another_order_keep_their_names():
    w = Window()
    w.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, 1)
    w.add({"b": torch.tensor(2.0), "a": torch.tensor(1.0)}, 1)
    assert dict(zip(w.names, w.sums().tolist(), strict=False)) == {"a": 2, "b": 4}


def test_an_impossible_number_of_batches_is_refused():
    with pytest.raises(ValueError, match="steps_per_epoch"):
        Linear(epochs=1, steps_per_epoch=0)
    with pytest.raises(ValueError, match="steps_per_epoch"):
        Exponential(rate=0.5, steps_per_epoch=0)


def test_a_seeded_block_on_the_cpu_leaves_accelerators_alone(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    from vaelab.numerics import seeded

    with seeded(1, torch.device("cpu")):
        torch.randn(3)
    assert not seeds
