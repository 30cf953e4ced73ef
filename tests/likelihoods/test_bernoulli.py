"""The Bernoulli likelihood: a probability of binary images, an expected log-probability of grey ones."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli
from torch.nn.functional import binary_cross_entropy_with_logits

from vaelab.likelihoods import BernoulliLikelihood

K, B, SHAPE = 3, 4, (2, 3, 5)


def all_binary_images() -> Tensor:
    """All 16 images of 2x2 pixels."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64).view(16, 1, 2, 2)


def test_log_prob_of_binary_data_is_torch_s_in_nats_per_image() -> None:
    torch.manual_seed(0)
    logits, x = torch.randn(K, B, *SHAPE), torch.randint(0, 2, (B, *SHAPE)).float()
    log_px = BernoulliLikelihood().log_prob(logits, x)
    assert log_px.shape == (K, B)
    torch.testing.assert_close(log_px, Bernoulli(logits=logits).log_prob(x).sum((-3, -2, -1)))


def test_log_prob_of_grey_data_is_minus_the_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, x = torch.randn(K, B, *SHAPE), torch.rand(B, *SHAPE)
    log_px = BernoulliLikelihood().log_prob(logits, x)
    for k in range(K):
        for b in range(B):
            cross_entropy = binary_cross_entropy_with_logits(logits[k, b], x[b], reduction="sum")
            torch.testing.assert_close(log_px[k, b], -cross_entropy)


def test_log_prob_agrees_with_the_distribution() -> None:
    torch.manual_seed(0)
    likelihood, logits, x = BernoulliLikelihood(), torch.randn(B, *SHAPE), torch.rand(B, *SHAPE)
    p = likelihood(logits)
    assert (p.batch_shape, p.event_shape) == ((B,), SHAPE)
    torch.testing.assert_close(p.mean, logits.sigmoid())
    torch.testing.assert_close(likelihood.log_prob(logits.unsqueeze(0), x).squeeze(0), p.log_prob(x))


def test_probabilities_of_all_binary_images_add_up_to_one() -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(1, 1, 2, 2, dtype=torch.float64)
    log_px = BernoulliLikelihood().log_prob(logits.expand(1, 16, 1, 2, 2), all_binary_images())
    assert log_px.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_grey_data_score_the_expected_log_probability_of_the_binarised_image() -> None:
    torch.manual_seed(0)
    logits, grey = 2 * torch.randn(1, 1, 2, 2, dtype=torch.float64), torch.rand(1, 1, 2, 2, dtype=torch.float64)
    likelihood, binary = BernoulliLikelihood(), all_binary_images()
    weights = Bernoulli(probs=grey).log_prob(binary).sum((-3, -2, -1)).exp()
    expected = (weights * likelihood.log_prob(logits.expand(1, 16, 1, 2, 2), binary)).sum()
    torch.testing.assert_close(likelihood.log_prob(logits.unsqueeze(0), grey).squeeze(), expected)


def test_gradient_is_data_minus_probability() -> None:
    torch.manual_seed(0)
    logits, x = torch.randn(1, B, *SHAPE, requires_grad=True), torch.rand(B, *SHAPE)
    BernoulliLikelihood().log_prob(logits, x).sum().backward()
    torch.testing.assert_close(logits.grad[0], x - logits.detach()[0].sigmoid())


def test_certain_decoders_keep_score_and_gradient_finite() -> None:
    logits = torch.tensor([-1e4, -200.0, 200.0, 1e4]).view(1, 1, 1, 2, 2).requires_grad_()
    right = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2)
    assert BernoulliLikelihood().log_prob(logits, right).item() == 0
    log_px = BernoulliLikelihood().log_prob(logits, 1 - right)
    assert log_px.item() == pytest.approx(-20_400)
    log_px.sum().backward()
    assert logits.grad.flatten().tolist() == [1, 1, -1, -1]


def test_half_precision_logits_are_scored_in_float32() -> None:
    torch.manual_seed(0)
    logits, x = torch.randn(K, B, *SHAPE).bfloat16(), torch.rand(B, *SHAPE)
    log_px = BernoulliLikelihood().log_prob(logits, x)
    assert log_px.dtype == torch.float32
    torch.testing.assert_close(log_px, BernoulliLikelihood().log_prob(logits.float(), x))
    assert BernoulliLikelihood()(logits[0]).mean.dtype == torch.float32


@pytest.mark.parametrize("support", ["binary", "levels", "unit"])
def test_data_between_0_and_1_are_accepted(support: str) -> None:
    BernoulliLikelihood().check_support(support)
    assert support in BernoulliLikelihood.supports


@pytest.mark.parametrize("support", ["real", "anything"])
def test_other_data_are_refused_with_a_remedy(support: str) -> None:
    with pytest.raises(ValueError, match=f"this data is {support}.*model/likelihood=gaussian"):
        BernoulliLikelihood().check_support(support)
