"""The von Mises-Fisher posterior."""

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn.functional import normalize, softplus

from vaelab.priors import UniformSpherePrior
from vaelab.samplers import VonMisesFisherSampler


def test_what_the_network_emits_is_a_direction_and_a_concentration() -> None:
    torch.manual_seed(0)
    sampler = VonMisesFisherSampler(in_shape=(5,), latent_shape=(3,)).double()
    features = torch.randn(2, 5, dtype=torch.float64)
    q = sampler(features)
    torch.testing.assert_close(q.mean, normalize(sampler.direction(features)))
    kappa = 3 * softplus(sampler.concentration(features)).squeeze(1) + 1e-3
    z = normalize(torch.randn(6, 2, 3, dtype=torch.float64), dim=-1)
    # In three dimensions C(kappa) = kappa / (4 pi sinh kappa).
    expected = (kappa / (4 * torch.pi * kappa.sinh())).log() + kappa * (q.mean * z).sum(-1)
    torch.testing.assert_close(q.log_prob(z), expected)


def test_every_position_of_a_map_is_a_unit_vector_with_a_kl_of_its_own() -> None:
    torch.manual_seed(0)
    sampler = VonMisesFisherSampler(in_shape=(5, 2, 3), latent_shape=(4, 2, 3))
    features = torch.randn(7, 5, 2, 3)
    q, p = sampler(features), UniformSpherePrior(latent_shape=(4, 2, 3))()
    for unit in (q.rsample((6,)), q.mean.unsqueeze(0), p.sample((6, 7))):
        torch.testing.assert_close(unit.norm(dim=2), torch.ones(unit.shape[0], 7, 2, 3))
    vector = VonMisesFisherSampler(in_shape=(5,), latent_shape=(4,))
    for mine, theirs in ((vector.direction, sampler.direction), (vector.concentration, sampler.concentration)):
        mine[1].weight.data, mine[1].bias.data = theirs.weight.data.flatten(1), theirs.bias.data
    single = UniformSpherePrior(latent_shape=(4,))()
    kl = sum(kl_divergence(vector(features[..., i, j]), single) for i in range(2) for j in range(3))
    torch.testing.assert_close(kl_divergence(q, p), kl)


@pytest.mark.parametrize("part", [VonMisesFisherSampler, UniformSpherePrior])
def test_one_dimension_has_no_sphere_to_speak_of(part: type) -> None:
    sizes = {"in_shape": (5,)} if part is VonMisesFisherSampler else {}
    with pytest.raises(ValueError, match="latent_dim must be at least 2 for unit vectors, but is 1"):
        part(latent_shape=(1,), **sizes)
