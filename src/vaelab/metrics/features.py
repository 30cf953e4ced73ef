"""A small network whose features say what an image shows: trained in place, on any image size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vaelab.checks import positive_int
from vaelab.numerics import seeded

WIDTH = 64  # features
SCALED_BY = 1000  # training images that give the features' scale
RANDOM = 0  # seed of the initial weights and of the batches


class FeatureNetwork(nn.Module):
    """Images (B, C, H, W) -> features (B, 64) -> logits (B, num_classes): two convolutions, each halving the sides.

    What `read` returns is scaled so that every feature has mean 0 and variance 1 on the training images.

    Args:
        x_shape: shape of an image, (C, H, W).
        num_classes: number of classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, x_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(x_shape[0], 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(tuple(min(7, -(-side // 4)) for side in x_shape[1:])),
            nn.Flatten(),
        )
        with torch.no_grad():
            size = self.body(torch.zeros(1, *x_shape)).shape[1]
        self.features = nn.Linear(size, WIDTH)
        self.logits = nn.Linear(WIDTH, num_classes)
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("std", torch.ones(WIDTH))

    def embed(self, x: Tensor) -> Tensor:
        """Returns the features (B, 64), before any non-linearity, of images (B, C, H, W)."""
        return self.features(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits (B, num_classes) of images (B, C, H, W)."""
        return self.logits(functional.relu(self.embed(x)))

    @torch.no_grad()
    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features (N, 64) and the logits (N, num_classes) of images (N, C, H, W) on any device."""
        device = self.logits.weight.device
        features = torch.cat([self.embed(part.to(device, torch.float32)) for part in x.split(1000)])
        return ((features - self.mean) / self.std).cpu(), self.logits(functional.relu(features)).cpu()

    def standardize(self, x: Tensor) -> None:
        """Takes the scale of the features from training images x (N, C, H, W); features that are constant stay 0."""
        features, _ = self.read(x)
        std = features.std(0)
        self.mean.copy_(features.mean(0))
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))


def feature_network(
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    device: torch.device,
    folder: Path | None = None,
    progress: Iterator[int] | None = None,
) -> tuple[FeatureNetwork, str]:
    """Trains a classifier of images, or reads it from `folder`, and returns it with the key of what it depends on.

    Weights and batches come from fixed seeds, so that runs on the same training images are judged by one network. For
    fewer than two classes the network stays random, with a single logit: its features tell sets apart less well, but
    distances of equal sets are still 0.

    Args:
        x: training images (N, C, H, W).
        y: their labels (N,), counting from 0; negative where they are not known.
        steps: batches of 128 images.
        device: where to train.
        folder: where the network is kept, as features-KEY.pt; None keeps it nowhere.
        progress: yields the numbers of the steps; None counts in silence.

    Raises:
        ValueError: for a `steps` below 1, no images, or another number of labels.
    """
    positive_int("steps", steps)
    if not len(x):
        raise ValueError("the feature network needs training images, but there are none")
    if len(x) != len(y):
        raise ValueError(f"every image needs a label, -1 for none, but there are {len(x)} images and {len(y)} labels")
    known = y >= 0 if y.ndim == 1 else torch.zeros(len(x), dtype=torch.bool)
    x_shape = (x.shape[1], x.shape[2], x.shape[3])
    trained = len(y[known].unique()) > 1
    classes = int(y[known].max()) + 1 if trained else 1
    key = fingerprint(x[known], y[known], steps) if trained else f"random-{fingerprint(x[:SCALED_BY], y[:0])}"
    with seeded(RANDOM, device):
        network = FeatureNetwork(x_shape, classes)
        file = None if folder is None or not trained else folder / f"features-{key}.pt"
        if file is not None and file.is_file():
            network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        elif trained:
            train_classifier(network.to(device), x[known], y[known], steps=steps, progress=progress)
        network = network.to(device).eval().requires_grad_(False)
        if file is None or not file.is_file():
            network.standardize(x[:SCALED_BY])
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.save(network.state_dict(), file)
    return network, key


def train_classifier(
    network: nn.Module, x: Tensor, y: Tensor, *, steps: int, progress: Iterator[int] | None = None
) -> None:
    """Trains a classifier of images x (N, C, H, W) of labels y (N,) by so many steps of Adam on batches of 128."""
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(RANDOM)
    for _ in progress or range(steps):
        index = torch.randint(len(x), (128,), generator=generator)
        loss = functional.cross_entropy(network(x[index].to(device, torch.float32)), y[index].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fingerprint(x: Tensor, y: Tensor, *settings: object) -> str:
    """Returns 12 hexadecimal digits that depend on images, labels and settings."""
    digest = hashlib.sha256(repr((tuple(x.shape), *settings)).encode())
    for part in (x, y):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
