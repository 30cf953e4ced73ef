"""M2: the bound enumerated by hand, told and hidden labels, the classifier's penalty."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from vaelab.likelihoods import BernoulliLikelihood
from vaelab.models import M2, VAE, Terms, build_m2, build_vae
from vaelab.networks import LabelCondition, MLPDecoder, MLPEncoder, Unconditional
from vaelab.objectives import ELBO, GECO, IWAE, BetaTCVAE, Capacity, FreeBits, InfoVAE
from vaelab.priors import StandardNormalPrior
from vaelab.samplers import DeterministicSampler, GaussianSampler

PARTS = dict(
    x_shape=(1, 2, 3),
    latent_dim=2,
    encoder=partial(MLPEncoder, hidden=[5], activation="tanh"),
    sampler=GaussianSampler,
    prior=StandardNormalPrior,
    decoder=partial(MLPDecoder, hidden=[4], activation="tanh"),
    likelihood=BernoulliLikelihood(),
)


def make(classes: int = 3, **more: object) -> M2:
    torch.manual_seed(0)
    return build_m2(**{**PARTS, "condition": LabelCondition(num_classes=classes), **more}).double()


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 2, 3, generator=torch.Generator().manual_seed(1)).double()


def terms_of(model: M2, x: Tensor, y: Tensor | None = None, num_samples: int = 1) -> Terms:
    torch.manual_seed(2)
    return model(x, y, num_samples=num_samples)


# ---- the bound


def test_the_unlabelled_bound_is_the_sum_over_classes_written_out() -> None:
    """Equation 7, term by term, with the noise that the model drew: two classes, one example after the other."""
    model, x = make(classes=2), images(3)
    terms = terms_of(model, x, torch.tensor([-1, -1, -1]), num_samples=2)
    torch.manual_seed(2)
    noise = torch.randn(2, 6, 2, dtype=torch.float64)  # of pairs: (x1, 0), (x1, 1), (x2, 0), ...
    probs = model.classify(x)
    for b in range(3):
        for k in range(2):
            bound = torch.zeros(()).double()
            for y in range(2):
                label = torch.tensor([y])
                q = model.vae.encode(x[b : b + 1], label).base_dist
                z = q.loc + q.scale * noise[k, 2 * b + y]
                logits = model.vae.decoder(z, torch.eye(2).double()[label])
                log_px = (x[b] * logits.sigmoid().log() + (1 - x[b]) * (1 - logits.sigmoid()).log()).sum()
                kl = 0.5 * (q.loc**2 + q.scale**2 - 2 * q.scale.log() - 1).sum()
                p = probs[b, y]
                bound = bound + p * (log_px - kl - p.log() + math.log(1 / 2))
            torch.testing.assert_close(terms.elbo[k, b], bound)


def test_the_labelled_bound_is_that_of_the_joint_with_the_told_label() -> None:
    model, x, y = make(), images(4), torch.tensor([2, 0, 1, 2])
    terms = terms_of(model, x, y, num_samples=3)
    torch.manual_seed(2)
    given = model.vae(x, y, num_samples=3)
    torch.testing.assert_close(terms.elbo, given.elbo + math.log(1 / 3))


def test_the_bound_is_below_log_p_of_x() -> None:
    """Against an integral over z on a grid, for every image and far more than the noise of the draws."""
    model, x = make().eval(), images(4)
    axis = torch.linspace(-6, 6, 121).double()
    z = torch.cartesian_prod(axis, axis)
    log_prior = -0.5 * z.square().sum(1) - math.log(2 * math.pi) + 2 * math.log(0.1)
    joint = []
    for y in range(3):
        p = model.p_x(z, torch.full((len(z),), y))
        joint += [p.log_prob(image) + log_prior - math.log(3) for image in x]
    log_px = torch.stack(joint).view(3, 4, -1).movedim(0, 1).flatten(1).logsumexp(1)
    elbo = terms_of(model, x, num_samples=2000).elbo.mean(0)
    assert (elbo < log_px).all()
    assert (log_px - elbo < 2).all()


def test_with_one_class_it_is_the_vae() -> None:
    model, x = make(classes=1), images(4)
    torch.manual_seed(2)
    vae = model.vae(x, torch.zeros(4).long(), num_samples=3)
    for y in (None, torch.tensor([0, -1, 0, -1])):
        terms = terms_of(model, x, y, num_samples=3)
        torch.testing.assert_close(terms.log_px, vae.log_px)
        torch.testing.assert_close(terms.kl, vae.kl)


def test_the_kl_by_dimension_adds_up_to_the_kl_of_z() -> None:
    latent = terms_of(make(), images(4), torch.tensor([-1, 0, 2, -1])).latents[0]
    torch.testing.assert_close(latent.kl_per_dim.sum(1), latent.kl[0])


# ---- labelled and unlabelled rows


def test_rows_of_both_kinds_mix_and_only_those_pairs_are_decoded_that_count() -> None:
    # Without noise every row must be what it is alone.
    model, x, y = make(sampler=DeterministicSampler), images(4), torch.tensor([-1, 2, -1, 0])
    decoded: list[int] = []
    model.vae.decoder.register_forward_pre_hook(lambda _, args: decoded.append(len(args[0])))
    mixed = terms_of(model, x, y)
    assert decoded == [3 + 1 + 3 + 1]
    for b in range(4):
        alone = terms_of(model, x[b : b + 1], y[b : b + 1])
        torch.testing.assert_close(mixed.elbo[:, b], alone.elbo[:, 0])
        torch.testing.assert_close(mixed.penalties["classification"][b], alone.penalties["classification"][0])
        torch.testing.assert_close(mixed.latents[1].kl[:, b], alone.latents[1].kl[:, 0])


def test_in_evaluation_labels_are_compared_and_not_used() -> None:
    model, x = make().eval(), images(4)
    guesses = model.classify(x).argmax(1)
    wrong = guesses.clone()
    wrong[0] = (guesses[0] + 1) % 3
    for y, accuracy in ((guesses, 1.0), (wrong, 0.75)):
        terms = terms_of(model, x, y)
        assert torch.equal(terms.elbo, terms_of(model, x).elbo)
        assert terms.penalties == {}
        assert terms.metrics["accuracy"].item() == accuracy
    assert terms_of(model, x, torch.tensor([wrong[0], -1, -1, guesses[3]])).metrics["accuracy"].item() == 0.5
    assert terms_of(model, x).metrics == terms_of(model, x, torch.full((4,), -1)).metrics == {}


def test_the_penalty_is_the_weighted_cross_entropy_of_labelled_rows_alone() -> None:
    model, x, y = make(classification_weight=7.0), images(4), torch.tensor([-1, 2, -1, 0])
    penalty = terms_of(model, x, y).penalties["classification"]
    log_q = model.classify(x).log().detach()
    torch.testing.assert_close(penalty, torch.tensor([0, -7 * log_q[1, 2], 0, -7 * log_q[3, 0]]).double())
    x.requires_grad_()
    terms_of(model, x, y).penalties["classification"].sum().backward()
    assert x.grad.flatten(1).any(1).tolist() == [False, True, False, True]


def test_a_told_label_teaches_the_classifier_through_the_penalty_alone() -> None:
    model, x = make(), images(4)
    terms_of(model, x, torch.tensor([0, 1, 2, 0])).elbo.sum().backward()
    assert not any(p.grad.any() for p in model.classifier.parameters())
    terms_of(model, x, torch.tensor([0, 1, -1, 0])).elbo.sum().backward()
    assert all(p.grad.any() for p in model.classifier.parameters())


@pytest.mark.parametrize("y", [[0, 1, 2, 0], [-1, -1, -1, -1], [0, -1, -1, 2]])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_no_parameter_is_ever_without_a_gradient(y: list[int], weight: float) -> None:
    model = make(classification_weight=weight)  # several processes would wait for it
    loss, _ = ELBO()(terms_of(model, images(4), torch.tensor(y)), 0)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- objectives


@pytest.mark.parametrize(
    "objective", [ELBO(), FreeBits(per="group", free_nats=0.1), Capacity(), GECO(target=-3.0)], ids=lambda o: type(o)
)
def test_objectives_of_the_kl_take_it_and_log_the_true_bound(objective) -> None:
    terms = terms_of(make(), images(4), torch.tensor([-1, 2, -1, 0]))
    loss, logs = objective(terms, 0)
    torch.testing.assert_close(logs["elbo"], terms.elbo.mean().detach())
    torch.testing.assert_close(logs["classification"], terms.penalties["classification"].mean().detach())
    assert logs["loss"] == loss.detach()


@pytest.mark.parametrize(
    "objective", [IWAE(num_samples=2), InfoVAE(), BetaTCVAE(train_size=9), ELBO(estimator="stl")], ids=lambda o: type(o)
)
def test_objectives_that_read_draws_refuse_it(objective) -> None:
    with pytest.raises(ValueError, match=r"objective=elbo needs none|one latent group"):
        objective(terms_of(make(), images(4), num_samples=2), 0)


# ---- encode, reconstruct, sample, classify


def test_a_missing_label_is_guessed() -> None:
    model, x = make().eval(), images(4)
    guesses = model.classify(x).argmax(1)
    torch.testing.assert_close(model.encode(x).mean, model.vae.encode(x, guesses).mean)
    y = torch.tensor([-1, 2, 0, -1])
    filled = torch.tensor([guesses[0], 2, 0, guesses[3]])
    torch.testing.assert_close(model.encode(x, y).mean, model.vae.encode(x, filled).mean)
    torch.testing.assert_close(model.reconstruct(x), model.vae.reconstruct(x, guesses))
    torch.testing.assert_close(model.reconstruct(x, y, batch_size=3), model.vae.reconstruct(x, filled))


def test_samples_are_of_the_class_that_is_given() -> None:
    model = make().eval()
    y = torch.tensor([0, 1, 2])
    torch.testing.assert_close(model.sample(3, y, seed=0), model.vae.sample(3, y, seed=0))
    assert not torch.allclose(model.sample(3, y, seed=0), model.sample(3, y.flip(0), seed=0))


def test_probabilities_of_the_classes_add_up_to_one() -> None:
    probs = make().classify(images(4))
    assert probs.shape == (4, 3)
    torch.testing.assert_close(probs.sum(1), torch.ones(4).double())


def test_encoder_and_classifier_see_the_same_normalised_data() -> None:
    plain, model, x = make(), make(mean=[0.3], std=[0.2]), images(4)
    torch.testing.assert_close(model.classify(x), plain._log_qy((x - 0.3) / 0.2).exp())
    torch.testing.assert_close(model.encode(x).mean, model.vae.encode(x, model.classify(x).argmax(1)).mean)


# ---- refusals


def test_a_model_without_labels_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"M2 needs a condition on labels, but has Unconditional.*model/condition=label"
    ):
        make(condition=Unconditional())


def test_a_classifier_of_other_data_is_refused() -> None:
    vae: VAE = build_vae(**PARTS, condition=LabelCondition(num_classes=3))
    with pytest.raises(ValueError, match=r"classifier's input is of shape \(1, 2, 2\)"):
        M2(vae=vae, classifier=MLPEncoder(in_shape=(1, 2, 2)))
