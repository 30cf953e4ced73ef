"""The semi-supervised model M2: p(x, y, z) = p(y) p(z) p(x|y,z), q(y|x) q(z|x,y)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution
from torch.nn.functional import one_hot

from vaelab.checks import at_least_zero, positive_int
from vaelab.likelihoods import Likelihood
from vaelab.models.base import Model
from vaelab.models.build import build_vae, glorot
from vaelab.models.terms import Latent, Terms
from vaelab.models.vae import VAE
from vaelab.networks import Condition, Corruption, Decoder, Encoder, LabelCondition
from vaelab.numerics import at_least_float32
from vaelab.priors import Prior
from vaelab.samplers import Sampler
from vaelab.samplers.base import head


class Enumerated(Latent):
    """A latent group of which only the KL is known: an exact expectation over q(y|x), for which no draw stands.

    Objectives that read draws (importance weights, aggregate posteriors) refuse it; those of the KL do not.

    Args:
        q: the posterior; of z, that of all pairs of an example and a class.
        p: the prior.
        kl: the expected KL in nats, (K, B).
        kl_per_dim: that of every latent dimension, (B, *latent_shape), or None.
    """

    def __init__(self, *, q: Distribution, p: Distribution, kl: Tensor, kl_per_dim: Tensor | None = None) -> None:
        self.__dict__.update(q=q, p=p, kl=kl, kl_per_dim=kl_per_dim)  # the class is frozen, and caches both figures

    @property
    def z(self) -> Tensor:
        """Refuses.

        Raises:
            ValueError: always.
        """
        raise ValueError("M2 sums over the classes, so that none of its draws stands alone; objective=elbo needs none")

    __repr__ = object.__repr__


class M2(Model):
    """A conditional VAE whose label y is told for few examples and inferred for all others (Kingma et al. 2014).

    Labelled, y >= 0 (equation 6):    E_q(z|x,y)[log p(x|y,z)] - KL(q(z|x,y) || p(z)) + log p(y) <= log p(x, y).
    Unlabelled, y = -1 (equation 7):  sum_y q(y|x) (E_q(z|x,y)[log p(x|y,z)] - KL(q(z|x,y) || p(z)))
                                      - KL(q(y|x) || p(y)) <= log p(x).

    The sum over y is exact, with a draw of z for every class, and p(y) is uniform over the classes. Both are one
    formula, in which a told label takes the place of q(y|x). Labels are told while training only: in evaluation mode
    every example counts as unlabelled, its bound is one on log p(x), and its label serves to measure the `accuracy`.

    While training the penalty `classification` teaches q(y|x) the labels (equation 9). For every labelled example it is
    -weight * log q(y|x), for all others 0, so that its mean over the batch is weight * (share of labelled examples) *
    (their cross-entropy): the paper's alpha = 0.1 N is a weight of 0.1 / share. Deviation: the default is far larger,
    because a classifier that has not learned the labels yet makes other clusters of the classes.

    Args:
        vae: p(z) p(x|y,z) and q(z|x,y), conditional on labels.
        classifier: data (B, C, H, W) -> features, of which q(y|x) is a softmax regression.
        classification_weight: in nats of the bound per nat of cross-entropy.

    Raises:
        ValueError: if `vae` is not conditional on labels, the classifier is of another data shape, or for a negative
            weight.
    """

    def __init__(self, *, vae: VAE, classifier: Encoder, classification_weight: float = 50.0) -> None:
        super().__init__(
            x_shape=vae.x_shape, latent_shape=vae.latent_shape, likelihood=vae.likelihood, condition=vae.condition
        )
        if not isinstance(vae.condition, LabelCondition):
            raise ValueError(
                f"M2 needs a condition on labels, but has {type(vae.condition).__name__}; choose model/condition=labels"
            )
        if tuple(classifier.in_shape) != self.x_shape:
            raise ValueError(
                f"the classifier's input is of shape {tuple(classifier.in_shape)}, but the data is of {self.x_shape}"
            )
        self.vae = vae
        self.num_classes = vae.condition.num_classes
        self.classifier = classifier
        self.logits = head(classifier.out_shape, (self.num_classes,))
        self.classification_weight = at_least_zero("classification_weight", classification_weight)

    @property
    def is_plane(self) -> bool:
        """Whether z is a point of the Euclidean plane, which can be drawn."""
        return self.vae.is_plane

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """Returns the submodules by part: those of the conditional VAE, and the classifier."""
        return {**self.vae.parts(), "classifier": (self.classifier, self.logits)}

    def forward(self, x: Tensor, context: Tensor | None = None, *, num_samples: int = 1) -> Terms:
        """Returns the terms of the bound of x (B, C, H, W), whose labels (B,) are -1 where they are not known.

        `log_px` and the KL of z are expectations over q(y|x); the second latent group is y. All classes of all examples
        are decoded at once.

        Raises:
            ValueError: for a `num_samples` below 1.
        """
        positive_int("num_samples", num_samples)
        log_qy = self._log_qy(x)  # (B, Y)
        labels = torch.full((len(x),), -1, device=x.device) if context is None else context.to(x.device)
        known = labels >= 0
        told = known & self.training
        given = one_hot(labels.clamp(min=0), self.num_classes)
        q_y = torch.where(told.unsqueeze(1), given.to(log_qy), log_qy.exp())
        entropy = -(log_qy.exp() * log_qy).sum(1)
        kl_y = math.log(self.num_classes) - torch.where(told, 0.0, entropy)

        # The pairs of an example and a class of which q(y|x) is not 0: one of a labelled example, Y of all others.
        pairs = ~told.unsqueeze(1) | given.bool()
        row, y = pairs.nonzero(as_tuple=True)  # (R,)
        terms = self.vae(x[row], y, num_samples=num_samples)
        (z,) = terms.latents

        def expected(values: Tensor, dim: int) -> Tensor:
            """Adds up values of pairs (R in dimension `dim`), weighed by q(y|x), to those of examples (B)."""
            weights = q_y[row, y].view(-1, *(1,) * (values.ndim - dim - 1))
            shape = (*values.shape[:dim], len(x), *values.shape[dim + 1 :])
            return values.new_zeros(shape).index_add(dim, row, (weights * values).to(values))

        per_dim = None if z.kl_per_dim is None else expected(z.kl_per_dim, 0)
        uniform = Categorical(logits=torch.zeros_like(log_qy[0]), validate_args=False)
        q_of_y = Categorical(probs=q_y, validate_args=False)
        return Terms(
            log_px=expected(terms.log_px, 1),
            latents=(
                Enumerated(q=z.q, p=z.p, kl=expected(z.kl, 1), kl_per_dim=per_dim),
                Enumerated(q=q_of_y, p=uniform, kl=kl_y.expand(num_samples, -1)),
            ),
            penalties=self._classification(log_qy, given, known) if self.training else {},
            metrics={} if self.training else self._accuracy(log_qy, labels, known),
            x=x,
            context=context,
            model=self,
        )

    def encode(self, x: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns q(z|x,y) of x (B, C, H, W), of its most probable class where the label y (B,) is -1 or not given."""
        return self.vae.encode(x, completed(context, self.classify(x).argmax(1)))

    def p_x(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """Returns p(x|y,z) of batch shape (B,) and event shape (C, H, W), for z (B, *latent_shape) and labels y (B,).

        Raises:
            ValueError: for latents of another shape, or missing labels.
        """
        return self.vae.p_x(z, context)

    def draw_latents(self, num_samples: int, context: Tensor | None = None) -> Tensor:
        """Draws z from the prior, (num_samples, *latent_shape)."""
        return self.vae.draw_latents(num_samples, context)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Tensor | None = None, *, batch_size: int = 1000) -> Tensor:
        """Returns the mean image of the posterior mean, (B, C, H, W), of the most probable class unless y is given."""
        positive_int("batch_size", batch_size)
        guesses = torch.cat([self.classify(part).argmax(1) for part in x.split(batch_size)])
        labels = completed(context, guesses)
        return super().reconstruct(x, labels, batch_size=batch_size)

    def classify(self, x: Tensor) -> Tensor:
        """Returns the probabilities q(y|x) of the classes, (B, Y), for x (B, C, H, W)."""
        return self._log_qy(self._as_data(x)).exp()

    def _log_qy(self, x: Tensor) -> Tensor:
        features = self.classifier(self.vae._seen_by_encoder(self.vae.corruption(x)))
        return at_least_float32(self.logits(features)).log_softmax(1)

    def _classification(self, log_qy: Tensor, given: Tensor, known: Tensor) -> dict[str, Tensor]:
        cross_entropy = -(given * log_qy).sum(1)
        return {"classification": self.classification_weight * torch.where(known, cross_entropy, 0.0)}

    def _accuracy(self, log_qy: Tensor, labels: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Returns the share of right guesses among the known labels; nothing where none is known."""
        if not known.any():
            return {}
        return {"accuracy": (log_qy.argmax(1) == labels)[known].float().mean()}


def completed(context: Tensor | None, guesses: Tensor) -> Tensor:
    """Returns labels (B,), with guesses in the place of those that are -1, or of all if there are none."""
    if context is None:
        return guesses
    return torch.where(context.to(guesses.device) >= 0, context.to(guesses.device), guesses)


def build_m2(
    *,
    x_shape: Sequence[int],
    latent_dim: int,
    encoder: Callable[..., Encoder],
    sampler: Callable[..., Sampler],
    prior: Callable[..., Prior],
    decoder: Callable[..., Decoder],
    likelihood: Likelihood,
    condition: Condition,
    classifier: Callable[..., Encoder] | None = None,
    classification_weight: float = 50.0,
    corruption: Corruption | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    initialization: str = "torch",
) -> M2:
    """Builds M2 from parts that still lack their sizes.

    Args:
        x_shape: data shape (C, H, W).
        latent_dim: number of latent dimensions D.
        encoder: of q(z|x,y); called with `in_shape` and what it must know of the label.
        sampler: called with `in_shape` (the features') and `latent_shape`.
        prior: p(z); called with `latent_shape`.
        decoder: called with `in_shape`, `out_shape` and what it must know of the label.
        likelihood: p(x|y,z).
        condition: what a label becomes for encoder and decoder.
        classifier: the network of q(y|x), called with `in_shape`; None takes another one like `encoder`.
        classification_weight: of the cross-entropy of the labelled examples.
        corruption: of what encoder and classifier see while training; None for none.
        mean: what is subtracted from the data before encoder and classifier, one number per channel.
        std: what the difference is divided by, one number per channel.
        initialization: of encoder, sampler, decoder and classifier: `torch` or `glorot`, as in `build_vae`.

    Raises:
        ValueError: if a size is impossible or the parts do not fit each other.
    """
    vae = build_vae(
        x_shape=x_shape,
        latent_dim=latent_dim,
        encoder=encoder,
        sampler=sampler,
        prior=prior,
        decoder=decoder,
        likelihood=likelihood,
        condition=condition,
        corruption=corruption,
        mean=mean,
        std=std,
        initialization=initialization,
    )
    network = (classifier or encoder)(in_shape=vae.x_shape)
    model = M2(vae=vae, classifier=network, classification_weight=classification_weight)
    if initialization == "glorot":
        glorot(model.classifier)
        glorot(model.logits)
    return model
