"""The likelihoods of grey levels: categorical, discretised logistic and mixtures of it."""

import math

import pytest
import torch
from torch import Tensor

from vaelab.likelihoods import (
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    Likelihood,
    bits_per_dim,
)
from vaelab.likelihoods.discrete import level_of

DISCRETE = [CategoricalLikelihood, DiscretizedLogisticLikelihood, DiscretizedLogisticMixtureLikelihood]
each = pytest.mark.parametrize("discrete", DISCRETE)


def levels_of(count: int) -> Tensor:
    """Every grey level as an image of one value, (L, 1, 1, 1)."""
    return (torch.arange(count) / (count - 1)).view(-1, 1, 1, 1)


def probabilities(likelihood: Likelihood, params: Tensor, count: int) -> Tensor:
    """P of every level, (N, L), for the parameters of N values, (N, P)."""
    images = params.view(len(params), 1, -1, 1, 1).expand(-1, count, -1, -1, -1)
    return likelihood.log_prob(images, levels_of(count).to(params)).exp()


@each
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("spread", [1.0, 10.0, 1000.0])
def test_the_probabilities_of_all_levels_sum_to_one(discrete: type, levels: int, spread: float) -> None:
    torch.manual_seed(0)
    likelihood = discrete(levels=levels)
    params = spread * torch.randn(50, likelihood.params_per_channel)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
        total = probabilities(likelihood, params.to(dtype), levels).sum(-1)
        torch.testing.assert_close(total, torch.ones(50, dtype=dtype), rtol=0, atol=tolerance)


@each
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_mean_is_the_expected_level(discrete: type, levels: int) -> None:
    torch.manual_seed(0)
    likelihood = discrete(levels=levels)
    params = 2 * torch.randn(50, likelihood.params_per_channel, dtype=torch.float64)
    wanted = probabilities(likelihood, params, levels) @ levels_of(levels).double().flatten()
    mean = likelihood(params[..., None, None]).mean.flatten()
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-7)


@each
def test_levels_are_drawn_as_often_as_they_are_probable(discrete: type) -> None:
    torch.manual_seed(0)
    likelihood, count = discrete(levels=5), 20_000
    params = torch.randn(6, likelihood.params_per_channel)
    draws = level_of(likelihood(params[..., None, None]).sample((count,)), 5).flatten(1)
    frequency = torch.stack([(draws == k).double().mean(0) for k in range(5)], -1)
    p = probabilities(likelihood, params.double(), 5)
    assert ((frequency - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt()).all()


@each
def test_half_precision_data_names_the_same_levels(discrete: type) -> None:
    likelihood = discrete(levels=256)
    torch.manual_seed(0)
    params, x = torch.randn(1, 256, likelihood.params_per_channel, 1, 1), levels_of(256)
    for dtype in (torch.bfloat16, torch.float16):
        torch.testing.assert_close(
            likelihood.log_prob(params, x.to(dtype)), likelihood.log_prob(params, x), rtol=0, atol=0
        )


@each
def test_floating_point_data_is_refused_with_a_remedy(discrete: type) -> None:
    with pytest.raises(ValueError, match=r"levels must be .*, but is None: floating-point data has none; use "):
        discrete(levels=None)
    for support in ("unit", "real"):
        with pytest.raises(ValueError, match=f"but this data is {support} .*use data.binarize=threshold, or a density"):
            discrete(levels=256).check_support(support)


@each
@pytest.mark.parametrize("levels", [1, 0, -3, True])
def test_fewer_than_two_levels_are_refused(discrete: type, levels: int) -> None:
    with pytest.raises(ValueError, match=f"levels must be .*but is {levels}"):
        discrete(levels=levels)


@each
def test_data_of_another_number_of_levels_is_refused(discrete: type) -> None:
    likelihood = discrete(levels=256)
    likelihood.check_support("levels", 256)
    likelihood.check_support("levels")
    with pytest.raises(ValueError, match="levels is 256, but this data has 17 grey levels; use levels=17"):
        likelihood.check_support("levels", 17)


# ---- categorical


def test_a_uniform_categorical_over_256_levels_costs_exactly_8_bits_per_dim() -> None:
    x_shape = (3, 4, 5)
    x = torch.randint(0, 256, (2, *x_shape)) / 255
    log_px = CategoricalLikelihood(levels=256).log_prob(torch.zeros(1, 2, 256 * 3, 4, 5), x)
    assert bits_per_dim(log_px, x_shape).flatten().tolist() == pytest.approx([8, 8], rel=1e-6)


def test_bits_per_dim_are_binary_logarithms_per_value() -> None:
    assert bits_per_dim(torch.tensor([0.0, -12 * math.log(2.0)]), (1, 3, 4)).tolist() == pytest.approx([0, 1])


def test_the_categorical_is_the_softmax_of_its_logits() -> None:
    torch.manual_seed(0)
    logits = torch.randn(10, 6)
    torch.testing.assert_close(probabilities(CategoricalLikelihood(levels=6), logits, 6), logits.softmax(-1))


# ---- discretised logistic


def naive(location: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Salimans et al. 2017, equation 2, for one component, as it is printed: (N, L) in float64."""
    edges = (torch.arange(1, levels).double() - 0.5) / (levels - 1)
    cdf = ((edges - location[:, None]) / scale[:, None]).sigmoid()
    ones = torch.ones(len(location), 1).double()
    return torch.cat([cdf, ones], -1) - torch.cat([0 * ones, cdf], -1)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_discretized_logistic_is_the_published_formula(levels: int) -> None:
    torch.manual_seed(0)
    location, log_scale = torch.rand(40).double() * 1.4 - 0.2, torch.randn(40).double().abs() - 0.9
    ours = probabilities(DiscretizedLogisticLikelihood(levels=levels), torch.stack([location, log_scale], -1), levels)
    torch.testing.assert_close(ours, naive(location, log_scale.exp(), levels), rtol=1e-6, atol=1e-12)


def test_probabilities_too_small_for_float32_keep_their_logarithm_and_gradient() -> None:
    """Far in the tail log P is -|x - mu| / s and a constant; exp of it is zero."""
    params = torch.tensor([0.2, math.log(1e-3)]).view(1, 1, 2, 1, 1).requires_grad_()
    likelihood = DiscretizedLogisticLikelihood(levels=256)
    near, far = (likelihood.log_prob(params, torch.full((1, 1, 1, 1), k / 255)) for k in (153, 204))
    assert far.exp().item() == 0
    assert (far - near).item() == pytest.approx(-0.2 / 1e-3, rel=1e-4)
    far.sum().backward()
    assert params.grad is not None
    assert params.grad.flatten()[0].item() == pytest.approx(1 / 1e-3, rel=1e-4)


def test_the_ends_take_the_tails() -> None:
    likelihood = DiscretizedLogisticLikelihood(levels=256)
    for location, end in ((-5.0, 0), (6.0, 255)):
        p = probabilities(likelihood, torch.tensor([[location, -2.0]]), 256)
        assert p[0, end].item() == pytest.approx(1, abs=1e-6)


def test_the_smallest_scale_leaves_nearly_all_mass_on_one_level() -> None:
    p = probabilities(DiscretizedLogisticLikelihood(levels=256), torch.tensor([[100 / 255, -1e4]]), 256)
    assert 0.9999 < p[0, 100].item() < 1


# ---- mixtures


def test_a_mixture_of_one_is_the_discretized_logistic() -> None:
    torch.manual_seed(0)
    params = torch.randn(20, 3)
    mixture = DiscretizedLogisticMixtureLikelihood(levels=17, num_components=1)
    torch.testing.assert_close(
        probabilities(mixture, params, 17), probabilities(DiscretizedLogisticLikelihood(levels=17), params[:, 1:], 17)
    )


def test_a_mixture_is_the_weighted_sum_of_its_components() -> None:
    """Layout: the logits of all components, then their locations, then their log scales."""
    torch.manual_seed(0)
    logits, location, log_scale = torch.randn(3, 20, 4)
    mixture = DiscretizedLogisticMixtureLikelihood(levels=17, num_components=4)
    assert mixture.params_per_channel == 12
    single = DiscretizedLogisticLikelihood(levels=17)
    parts = [probabilities(single, torch.stack([location[:, m], log_scale[:, m]], -1), 17) for m in range(4)]
    wanted = (logits.softmax(-1).unsqueeze(-1) * torch.stack(parts, 1)).sum(1)
    torch.testing.assert_close(probabilities(mixture, torch.cat([logits, location, log_scale], -1), 17), wanted)


def test_a_mixture_needs_a_component() -> None:
    with pytest.raises(ValueError, match="num_components must be a whole number of at least 1, but is 0"):
        DiscretizedLogisticMixtureLikelihood(levels=256, num_components=0)
