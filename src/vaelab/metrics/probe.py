"""How well a simple classifier reads the classes off a representation."""

from __future__ import annotations

from torch import Tensor

from vaelab.checks import one_of

NEIGHBOURS = 5  # of knn


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
        ValueError: for another classifier, vectors that do not fit, are not finite or all the same, training vectors of
            one class only, or fewer of them than neighbours.
    """
    # Imported here, because it takes a second.
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    _check(train, test)
    if classifier == "knn" and len(train[0]) < NEIGHBOURS:
        raise ValueError(f"knn needs at least {NEIGHBOURS} training vectors, but there are {len(train[0])}; take more")
    kinds = {
        "logistic_regression": LogisticRegression(max_iter=1000),
        "svm": SVC(),
        "knn": KNeighborsClassifier(NEIGHBOURS),
    }
    kind = kinds[one_of("classifier", classifier, tuple(kinds))]
    kind.fit(*(t.cpu().double().numpy() for t in train))
    return float(kind.score(*(t.cpu().double().numpy() for t in test)))


def _check(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> None:
    for z, y in (train, test):
        if z.ndim != 2 or y.shape != z.shape[:1] or not len(z) or z.shape[1] != train[0].shape[1]:
            raise ValueError(
                f"N >= 1 vectors (N, D) of one D with labels (N,) are needed, but they are {tuple(z.shape)} and "
                f"{tuple(y.shape)}"
            )
        if not z.isfinite().all():
            raise ValueError("vectors must be finite, but some are NaN or infinite; train the encoder anew")
    if (train[0] == train[0][:1]).all():
        raise ValueError("all vectors are the same, so that no class can be read off them; has it collapsed?")
    if len(train[1].unique()) < 2:
        raise ValueError("a classifier needs training vectors of at least two classes, but all are of one; take others")
