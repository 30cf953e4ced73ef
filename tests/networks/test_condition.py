"""A context reaches every network, by concatenation and by FiLM, and nothing else changes."""

from functools import partial

import pytest
import torch
from torch import nn

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import VAE, build_vae
from vaelab.networks import (
    AttributeCondition,
    Condition,
    ConvDecoder,
    ConvEncoder,
    LabelCondition,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
)
from vaelab.networks.condition import FiLM, joined
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import GaussianSampler

PAIRS = {
    "mlp": (partial(MLPEncoder, hidden=[6]), partial(MLPDecoder, hidden=[6])),
    "gated": (partial(MLPEncoder, hidden=[6], gated=True), partial(MLPDecoder, hidden=[6], gated=True)),
    "conv": (partial(ConvEncoder, channels=[4], dense=[5]), partial(ConvDecoder, channels=[4], dense=[5])),
    "resnet": (partial(ResNetEncoder, channels=[4]), partial(ResNetDecoder, channels=[4])),
}
CONDITIONS = {
    "one-hot": partial(LabelCondition, num_classes=3),
    "embedding": partial(LabelCondition, num_classes=3, embedding_dim=4),
    "attributes": partial(AttributeCondition, num_attributes=2),
}


def vae(network: str, condition: Condition | None, *, latent_map: bool = False) -> VAE:
    torch.manual_seed(0)
    encoder, decoder = PAIRS[network]
    if latent_map:
        encoder.keywords.pop("dense", None), decoder.keywords.pop("dense", None)
    return build_vae(
        x_shape=(1, 8, 8),
        latent_dim=2,
        latent_map=latent_map,
        encoder=encoder,
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=decoder,
        likelihood=BernoulliLikelihood(),
        condition=condition,
    ).double()


def contexts(condition: Condition) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(condition, AttributeCondition):
        return torch.zeros(4, 2), torch.ones(4, 2)
    return torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)


@pytest.mark.parametrize("how", ["concat", "film"])
@pytest.mark.parametrize("make", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("network", PAIRS)
def test_the_context_changes_posterior_and_image_and_gets_a_gradient(network, make, how):
    model = vae(network, make(how=how))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, FiLM):  # the identity at the start
                nn.init.normal_(module.linear.weight)
    one, two = contexts(model.condition)
    x, z = torch.rand(4, 1, 8, 8).double(), torch.randn(4, 2).double()
    assert not torch.allclose(model.encode(x, one).mean, model.encode(x, two).mean)
    assert not torch.allclose(model.decode(z, one), model.decode(z, two))
    terms = model(x, two, num_samples=3)
    terms.elbo.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_film_starts_as_the_identity():
    plain, modulated = vae("conv", None), vae("conv", LabelCondition(num_classes=3, how="film"))
    modulated.load_state_dict(_renamed(plain, modulated), strict=False)
    x = torch.rand(2, 1, 8, 8).double()
    torch.testing.assert_close(plain.encode(x).mean, modulated.encode(x, torch.tensor([0, 2])).mean)


def _renamed(plain: VAE, modulated: VAE) -> dict[str, torch.Tensor]:
    names = [n for n in modulated.state_dict() if ".linear." not in n and not n.startswith("condition")]
    return dict(zip(names, plain.state_dict().values(), strict=True))


def test_every_example_is_given_its_own_context_for_every_draw():
    model = vae("mlp", LabelCondition(num_classes=3))
    x, y = torch.rand(3, 1, 8, 8).double(), torch.tensor([2, 0, 1])
    terms = model(x, y, num_samples=5)
    for k in range(5):
        log_px = model.p_x(terms.latents[0].z[k], y).log_prob(x)
        torch.testing.assert_close(terms.log_px[k], log_px)


@pytest.mark.parametrize("embedding_dim", [None, 4])
def test_labels_of_any_integer_type_are_the_same(embedding_dim):
    condition = LabelCondition(num_classes=3, embedding_dim=embedding_dim)
    y = torch.tensor([2, 0])
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(condition(y.to(dtype)), condition(y))


def test_spectral_norm_leaves_film_alone_which_starts_at_zero():
    encoder, decoder = PAIRS["mlp"]
    model = build_vae(
        x_shape=(1, 8, 8),
        latent_dim=2,
        encoder=encoder,
        sampler=GaussianSampler,
        prior=StandardNormalPrior,
        decoder=decoder,
        likelihood=BernoulliLikelihood(),
        condition=LabelCondition(num_classes=3, how="film"),
        spectral_norm=True,
    )
    assert model.decode(torch.randn(2, 2), torch.tensor([0, 1])).isfinite().all()
    norms = [
        torch.linalg.matrix_norm(m.weight, 2).item() for m in model.decoder.modules() if hasattr(m, "parametrizations")
    ]
    assert norms == pytest.approx([1.0, 1.0], rel=0.1)


def test_film_by_hand():
    film = FiLM(2, 3)
    with torch.no_grad():
        film.linear.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [2, 0]]))
    h = torch.ones(1, 3, 2, 2)
    out = film(h, torch.tensor([[0.5, -1.0]]))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([1.5, 0.0, 2.0]))
    assert torch.equal(out, out[..., :1, :1].expand_as(out))


def test_maps_get_the_context_as_constant_channels():
    out = joined(torch.zeros(2, 1, 3, 4), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert out.shape == (2, 3, 3, 4)
    assert torch.equal(out[1, 2], torch.full((3, 4), 4.0))


def test_latent_maps_take_a_context_too():
    model = vae("resnet", LabelCondition(num_classes=3), latent_map=True)
    y = torch.tensor([0, 1])
    z = model.draw_latents(1).expand(2, *model.latent_shape).double()
    images = model.decode(z, y)
    assert not torch.allclose(images[0], images[1])


def test_samples_without_a_context_draw_every_label_and_with_one_keep_it():
    model = vae("mlp", LabelCondition(num_classes=3))
    drawn = model.condition.draw(3000, model.device)
    assert (drawn.bincount(minlength=3).double() / 3000 - 1 / 3).abs().max() < 0.05
    given = torch.tensor([1, 1, 2])
    z = model.draw_latents(3)
    assert model.sample(3, given, seed=0).shape == (3, 1, 8, 8)
    assert torch.equal(model.sample(3, seed=0), model.sample(3, seed=0))
    assert not torch.allclose(model.decode(z, given), model.decode(z, torch.tensor([0, 0, 0])))


def test_what_is_missing_or_wrong_is_said():
    model = vae("mlp", LabelCondition(num_classes=3))
    x = torch.rand(2, 1, 8, 8).double()
    with pytest.raises(ValueError, match=r"conditional on labels.*none is given"):
        model(x)
    with pytest.raises(ValueError, match="conditional on labels"):
        model.encode(x, torch.rand(2))
    for label in (-1, 3):
        for make in (CONDITIONS["one-hot"], CONDITIONS["embedding"]):
            with pytest.raises(ValueError, match=rf"between 0 and 2 for this model, but reach from .*{label}"):
                make()(torch.tensor([label, 1]))
    attributes = vae("mlp", AttributeCondition(num_attributes=2))
    with pytest.raises(ValueError, match=r"attributes \(B, 2\), but they are of shape \(2, 3\)"):
        attributes(x, torch.rand(2, 3))
    with pytest.raises(ValueError, match="samples need their attributes"):
        attributes.sample(4)
    with pytest.raises(ValueError, match="as many rows of context"):
        model.sample(4, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="how"):
        LabelCondition(num_classes=3, how="add")
