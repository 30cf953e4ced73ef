"""Corruptions: their statistics, and that the likelihood is asked about the clean data."""

from functools import partial

import pytest
import torch
from small_models import small_vae

from vaelab.networks import GaussianNoise, Masking, SaltAndPepper
from vaelab.samplers import DeterministicSampler

X = torch.full((200, 1, 20, 20), 0.5)


def test_gaussian_noise_has_its_mean_and_deviation():
    torch.manual_seed(0)
    noise = GaussianNoise(std=0.3).corrupt(X) - X
    assert abs(noise.mean()) < 0.003
    assert abs(noise.std() - 0.3) < 0.003


def test_masking_sets_its_share_to_zero_and_keeps_the_rest():
    torch.manual_seed(0)
    out = Masking(probability=0.25).corrupt(X)
    assert abs((out == 0).double().mean() - 0.25) < 0.01
    assert set(out.unique().tolist()) == {0.0, 0.5}


def test_salt_and_pepper_sets_half_of_its_share_to_either_end():
    torch.manual_seed(0)
    out = SaltAndPepper(probability=0.4, low=-1.0, high=2.0).corrupt(X)
    for value, share in ((-1.0, 0.2), (2.0, 0.2), (0.5, 0.6)):
        assert abs((out == value).double().mean() - share) < 0.01


@pytest.mark.parametrize("make", [GaussianNoise, Masking, SaltAndPepper])
def test_only_training_corrupts(make):
    corruption = make()
    assert not torch.equal(corruption.train()(X), X)
    assert torch.equal(corruption.eval()(X), X)


def test_the_encoder_sees_the_corrupted_the_likelihood_the_clean():
    model = small_vae(DeterministicSampler, corruption=Masking(probability=0.5)).double().train()
    x = torch.rand(6, 1, 4, 4).double()
    torch.manual_seed(5)
    terms = model(x)
    torch.manual_seed(5)
    code = model.encode(model.corruption.corrupt(x)).mean
    torch.testing.assert_close(terms.latents[0].z[0], code)
    torch.testing.assert_close(terms.log_px[0], model.p_x(code).log_prob(x))
    torch.testing.assert_close(model.eval()(x).latents[0].z[0], model.encode(x).mean)


@pytest.mark.parametrize(
    "make",
    [
        partial(GaussianNoise, std=0.0),
        partial(Masking, probability=1.0),
        partial(SaltAndPepper, probability=-0.1),
        partial(SaltAndPepper, low=1.0, high=1.0),
    ],
)
def test_impossible_corruptions_are_refused(make):
    with pytest.raises(ValueError, match=r"std|probability|high"):
        make()
