"""Classifiers on representations."""

import pytest
import torch

from vaelab.metrics import probe_accuracy


def blobs(seed: int, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return torch.eye(3)[y] * 8 + torch.randn(count, 3, generator=generator), y


def rings(seed: int, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    direction = torch.nn.functional.normalize(torch.randn(count, 2, generator=generator), dim=1)
    return direction * (1 + 2 * y).unsqueeze(1), y


@pytest.mark.parametrize("classifier", ["logistic_regression", "svm"])
def test_separable_classes_are_told_apart(classifier: str) -> None:
    assert probe_accuracy(blobs(0), blobs(1), classifier=classifier) > 0.95


@pytest.mark.parametrize("classifier", ["logistic_regression", "svm"])
def test_labels_that_mean_nothing_are_guessed(classifier: str) -> None:
    z, y = blobs(0, 600)
    shuffled = y[torch.randperm(600, generator=torch.Generator().manual_seed(2))]
    assert probe_accuracy((z[:300], shuffled[:300]), (z[300:], shuffled[300:]), classifier=classifier) < 0.5


def test_only_the_kernel_sees_a_ring_around_another() -> None:
    assert probe_accuracy(rings(0), rings(1), classifier="svm") > 0.95
    assert probe_accuracy(rings(0), rings(1), classifier="logistic_regression") < 0.7


def test_another_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="classifier must be one of logistic_regression, svm, knn, but is 'forest'"):
        probe_accuracy(blobs(0), blobs(1), classifier="forest")
