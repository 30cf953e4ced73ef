"""Classifiers on representations."""

import pytest
import torch

from vaelab.metrics import probe_accuracy

every_classifier = pytest.mark.parametrize("classifier", ["logistic_regression", "svm", "knn"])


def blobs(seed: int, count: int = 60, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return torch.eye(3)[y] * 8 + noise * torch.randn(count, 3, generator=generator), y


def rings(seed: int, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    direction = torch.nn.functional.normalize(torch.randn(count, 2, generator=generator), dim=1)
    return direction * (1 + 2 * y).unsqueeze(1), y


@every_classifier
def test_separable_classes_are_told_apart(classifier: str) -> None:
    assert probe_accuracy(blobs(0), blobs(1), classifier=classifier) > 0.95


@every_classifier
def test_labels_that_mean_nothing_are_guessed(classifier: str) -> None:
    z, y = blobs(0, 600)
    shuffled = y[torch.randperm(600, generator=torch.Generator().manual_seed(2))]
    assert probe_accuracy((z[:300], shuffled[:300]), (z[300:], shuffled[300:]), classifier=classifier) < 0.5


def test_only_the_kernel_sees_a_ring_around_another() -> None:
    assert probe_accuracy(rings(0), rings(1), classifier="svm") > 0.95
    assert probe_accuracy(rings(0), rings(1), classifier="logistic_regression") < 0.7


@every_classifier
def test_vectors_that_know_nothing_leave_chance(classifier: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(600, 3, generator=generator), torch.randint(2, (600,), generator=generator)
    assert probe_accuracy((z[:300], y[:300]), (z[300:], y[300:]), classifier=classifier) == pytest.approx(0.5, abs=0.09)


@every_classifier
def test_neither_order_nor_rotation_nor_other_names_of_the_classes_matter(classifier: str) -> None:
    (z, y), test = blobs(0, 200, noise=4.0), blobs(1, 200, noise=4.0)
    expected = probe_accuracy((z, y), test, classifier=classifier)
    assert 0.5 < expected < 1
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2))).Q
    named = torch.tensor([7, 22, 40])
    for train, other in (
        ((z.flip(0), y.flip(0)), test),
        ((z @ turn, y), (test[0] @ turn, test[1])),
        ((z, named[y]), (test[0], named[test[1]])),
    ):
        assert probe_accuracy(train, other, classifier=classifier) == pytest.approx(expected, abs=0.011)


@every_classifier
def test_what_a_classifier_cannot_learn_from_is_refused(classifier: str) -> None:
    z, y = blobs(0)
    for train, words in (
        ((z, torch.zeros(60)), "of at least two classes, but all are of one"),
        ((z[:0], y[:0]), r"they are \(0, 3\) and \(0,\)"),
        ((z, y[:-1]), r"they are \(60, 3\) and \(59,\)"),
        ((z[:, :2], y), r"they are \(60, 3\) and \(60,\)"),
        ((z / 0, y), "vectors must be finite"),
        ((torch.full((60, 3), 0.7), y), "all vectors are the same"),
    ):
        with pytest.raises(ValueError, match=words):
            probe_accuracy(train, blobs(1), classifier=classifier)


def test_fewer_vectors_than_neighbours_are_refused() -> None:
    with pytest.raises(ValueError, match="knn needs at least 5 training vectors, but there are 4; take more"):
        probe_accuracy(blobs(0, 4), blobs(1), classifier="knn")


def test_another_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="classifier must be one of logistic_regression, svm, knn, but is 'forest'"):
        probe_accuracy(blobs(0), blobs(1), classifier="forest")
