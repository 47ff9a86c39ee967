"""Numbers computed from labels, predictions and counts; every share is a fraction in [0, 1], never percent."""

from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray


class ClassificationMeasures(TypedDict):
    """How well a model classifies a test set."""

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    per_class_accuracy: list[float | None]


def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Count how often class i (row) was predicted as class j (column).

    `labels`, `predictions`: class indices ``0 .. num_classes - 1``, ``(N,)``. Returns counts, int64, ``(C, C)``. Raises
    `ValueError` if the lengths differ or an index is outside ``0 .. num_classes - 1``.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], num_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    true, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"labels {true.shape} and predictions {predicted.shape} must be vectors of one length")
    for name, values in (("labels", true), ("predictions", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"{name} range from {values.min()} to {values.max()}; allowed: 0 to {num_classes - 1}")
    counts = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64, copy=False)


def classification_measures(confusion: NDArray[np.integer]) -> ClassificationMeasures:
    """Compute accuracy, balanced accuracy, macro-F1 and the accuracy of every class.

    Balanced accuracy is the mean recall over the classes that occur in the test set; macro-F1 is the mean of
    ``2 TP / (2 TP + FP + FN)`` over the classes that occur in the test set or among the predictions. Both are
    scikit-learn's definitions.

    `confusion`: counts, true class by predicted class, ``(C, C)``. Returns fractions; `per_class_accuracy` (recall) is
    None for a class that does not occur in the test set. Raises `ValueError` if the matrix counts no sample at all.

    >>> classification_measures(np.array([[3, 1, 0], [0, 1, 0], [0, 0, 0]]))
    {'accuracy': 0.8, 'balanced_accuracy': 0.875, 'macro_f1': 0.761..., 'per_class_accuracy': [0.75, 1.0, None]}
    """
    hits, occurring, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    if not occurring.any():
        raise ValueError("there is no accuracy without test samples: the confusion matrix is all zeros")
    recalls = [float(hit / count) if count else None for hit, count in zip(hits, occurring, strict=True)]
    involved = occurring + predicted  # 2 TP + FP + FN
    f1 = 2 * hits[involved > 0] / involved[involved > 0]
    return {
        "accuracy": float(hits.sum() / occurring.sum()),
        "balanced_accuracy": float(np.mean([recall for recall in recalls if recall is not None])),
        "macro_f1": float(f1.mean()),
        "per_class_accuracy": recalls,
    }


def entropy(counts: ArrayLike) -> float:
    """Return the entropy of a histogram in nats: 0 for one class or none, ln C for C equal ones.

    >>> round(entropy([5, 5, 0]), 4)
    0.6931
    >>> entropy([0, 7]), entropy([0, 0])
    (0.0, 0.0)
    """
    histogram = np.asarray(counts, dtype=np.float64)
    positive = histogram[histogram > 0]
    shares = positive / positive.sum()
    return abs(float(np.sum(shares * np.log(shares))))  # abs, since -sum of nothing would be -0.0


def aulc(labelled_fraction: ArrayLike, accuracy: ArrayLike) -> float:
    """Return the area under the learning curve: the mean accuracy over the labelled share that was covered.

    The trapezoid rule over the labelled fraction, divided by its range. Without a range (one point, or cycles that
    bought no labels) it is the mean of the accuracies.

    `labelled_fraction`: labelled share of the training data after each cycle, never decreasing, ``(T,)``. `accuracy`:
    test accuracy of each cycle, ``(T,)``. Raises `ValueError` if there is no point, the lengths differ or the labelled
    fraction decreases.

    >>> aulc([0.1, 0.2, 0.4], [0.5, 0.7, 0.8])
    0.7
    >>> aulc([0.1], [0.5])
    0.5
    """
    x, y = np.asarray(labelled_fraction, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not x.size:
        raise ValueError(
            f"labelled_fraction {x.shape} and accuracy {y.shape} must be vectors of one length, at least 1"
        )
    widths = np.diff(x)
    if (widths < 0).any():
        raise ValueError(f"labelled_fraction must never decrease, found {x.tolist()}")
    if not widths.any():
        return float(y.mean())
    return float(np.average((y[1:] + y[:-1]) / 2, weights=widths))
