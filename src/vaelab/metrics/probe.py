"""How well a simple classifier reads the classes off a representation."""

from __future__ import annotations

from torch import Tensor

from vaelab.checks import one_of


def probe_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, classifier: str) -> float:
    """Returns the share of test vectors that a classifier trained on the training vectors gets right.

    The classifier is scikit-learn's `logistic_regression` or `svm` (with a Gaussian kernel), each with its default
    regularisation, or `knn` (the majority of the 5 nearest neighbours). Vectors are taken as they are: posterior means
    are in units of the prior, and scaling every dimension to variance 1 would blow up those that the encoder does not
    use.

    Args:
        train: vectors (N, D) and their labels (N,).
        test: others.
        classifier: logistic_regression, svm or knn.

    Raises:
        ValueError: for another classifier.
    """
    # Imported here, because it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    kinds = {"logistic_regression": LogisticRegression(max_iter=1000), "svm": SVC(), "knn": KNeighborsClassifier()}
    kind = kinds[one_of("classifier", classifier, tuple(kinds))]
    kind.fit(*(t.cpu().double().numpy() for t in train))
    return float(kind.score(*(t.cpu().double().numpy() for t in test)))
