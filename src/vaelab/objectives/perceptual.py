"""Reconstruction judged by similarity as seen, not value by value: SSIM, and the features of a trained network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.models import VGG19_Weights, vgg19

from vaelab.checks import at_least_zero, one_of, positive_int
from vaelab.models.terms import Terms
from vaelab.objectives.base import Objective, bound_logs
from vaelab.schedules import Constant, Schedule

SMALLEST_SIDE = 6  # of an image under the 11x11 Gaussian window of SSIM, reflected at the borders
TAPS = (1, 6, 11)  # relu1_1, relu2_1, relu3_1 of VGG-19


class Perceptual(Objective):
    """loss = mean_B,K [ -share * log p(x|z) + weight * d(x, E[x|z]) + beta * w(step) * KL(q(z|x) || p(z)) ].

    d compares images of C values and H x W pixels, whose mean E[x|z] is in the range of the data:

    - `ssim`: C H W (1 - SSIM(x, E[x|z])) / 2, with SSIM of Wang et al. (2004): Gaussian window of sigma 1.5, constants
      0.01 and 0.03. Snell et al. (2017) train autoencoders so.
    - `vgg19`: sum over the layers relu1_1, relu2_1 and relu3_1 of VGG-19 of half the mean squared difference of their
      features (Hou et al. 2017, "Deep feature consistent VAE", equation 1), grey images as three equal channels. Its
      weights are downloaded by torchvision once.

    The logged `elbo` is the true bound, of log p(x|z) itself; it is not what is optimised unless `share` is 1.

    Args:
        similarity: ssim or vgg19.
        weight: of d.
        share: of the log-likelihood that is kept.
        beta: final weight of the KL.
        schedule: w, a function of the number of batches seen.
        pretrained: whether VGG-19 has its trained weights; false leaves them random (no download).
        num_samples: K, draws of z for every example.

    Raises:
        ValueError: for a negative weight, a `num_samples` below 1 or an unknown `similarity`; when called, for images
            too small for d.
    """

    def __init__(
        self,
        *,
        similarity: str = "ssim",
        weight: float = 1.0,
        share: float = 0.0,
        beta: float = 1.0,
        schedule: Schedule | None = None,
        pretrained: bool = True,
        num_samples: int = 1,
    ) -> None:
        super().__init__()
        self.num_samples = positive_int("num_samples", num_samples)
        self.similarity = one_of("similarity", similarity, ("ssim", "vgg19"))
        self.weight = at_least_zero("weight", weight)
        self.share = at_least_zero("share", share)
        self.beta = at_least_zero("beta", beta)
        self.schedule = schedule or Constant()
        # In a tuple: the judge is no part of what is trained, and checkpoints do not carry its weights.
        self._judge: tuple[nn.Sequential, ...] = (features(pretrained),) if similarity == "vgg19" else ()

    def weigh(self, terms: Terms, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Returns the loss, and the logs with the unweighted `dissimilarity` d and the weight `beta` in force."""
        beta = self.beta * self.schedule(step)
        model, x = terms.source, terms.x
        assert x is not None  # `source` has checked it
        x_mean = terms.x_mean.float()
        targets = x.float().expand_as(x_mean).flatten(0, 1)
        dissimilarity = self.compare(x_mean.flatten(0, 1), targets).mean()
        log_px, kl = terms.log_px.mean(), terms.kl.mean()
        loss = self.weight * dissimilarity + beta * kl - self.share * log_px
        # What only the likelihood itself can learn, such as a scale, has no gradient from images.
        if self.share == 0:
            loss = loss - log_px_of_likelihood_alone(terms, model.likelihood)
        logs = bound_logs(loss, log_px, kl)
        return loss, {**logs, "dissimilarity": dissimilarity.detach(), "beta": beta}

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns d of images (B, C, H, W) and as many others, (B,)."""
        if self.similarity == "vgg19":
            return self._feature_distance(a, b)
        if min(a.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"SSIM compares windows of 11x11 pixels and needs images of at least {SMALLEST_SIDE}x{SMALLEST_SIDE}, "
                f"but these are {a.shape[2]}x{a.shape[3]}; use objective=elbo"
            )
        # Variances are differences of means of squares, of which half precision leaves nothing.
        with torch.autocast(a.device.type, enabled=False):
            similarity = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
        assert isinstance(similarity, Tensor)
        return a[0].numel() * (1 - similarity.reshape(-1)) / 2

    def _feature_distance(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape[1] not in (1, 3) or min(a.shape[2:]) < 4:
            raise ValueError(
                f"VGG-19 looks at images of 1 or 3 channels and at least 4x4 pixels, but these are {tuple(a.shape[1:])}"
            )
        layers = self._judge[0].to(a.device)
        total = a.new_zeros(len(a))
        a, b = (imagenet_view(images) for images in (a, b))
        for i, layer in enumerate(layers):
            a, b = layer(a), layer(b)
            if i in TAPS:
                total = total + (a - b).square().flatten(1).mean(1) / 2
        return total


def features(pretrained: bool) -> nn.Sequential:
    """Returns the layers of VGG-19 up to relu3_1, frozen."""
    network = vgg19(weights=VGG19_Weights.DEFAULT if pretrained else None, init_weights=False)
    layers = network.features[: TAPS[-1] + 1]
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return layers.eval().requires_grad_(False)


def imagenet_view(images: Tensor) -> Tensor:
    """Returns images (B, C, H, W) in [0, 1] as three channels, normalised as VGG-19 was trained."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (images.expand(-1, 3, -1, -1) - mean) / std


def log_px_of_likelihood_alone(terms: Terms, likelihood: nn.Module) -> Tensor:
    """Returns mean log p(x|z) with a gradient to the likelihood's own parameters only, minus its value: 0, ()."""
    if not any(p.requires_grad for p in likelihood.parameters()) or not torch.is_grad_enabled():
        return terms.log_px.new_zeros(())
    assert terms.params is not None
    assert terms.x is not None
    log_px = terms.source.likelihood.log_prob(terms.params.detach(), terms.x).mean()
    return log_px - log_px.detach()
