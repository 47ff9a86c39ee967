"""Measures of a model on the test images: of all, of each class and of each client (docs/measures.md defines them)."""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.evaluation.measures import ClassificationMeasures, classification_measures, confusion_matrix

BINS = 15  # of equal width: the calibration error compares confidence with accuracy in each


OF_CLIENTS = ("accuracy", "balanced_accuracy", "specificity_macro", "auroc_macro", "calibration_error")


class MacroMeasures(TypedDict):
    """Means over the classes, and the calibration error; None where one is not defined."""

    specificity_macro: float | None
    auroc_macro: float | None
    calibration_error: float | None


class ClientMeasures(MacroMeasures):
    """How well a model classifies the test images of one client."""

    client: int
    name: str
    images: int
    accuracy: float
    balanced_accuracy: float


class ModelMeasures(ClassificationMeasures, MacroMeasures):
    """How well a model classifies the test images; `per_class_accuracy` is the sensitivity of each class."""

    per_class_specificity: list[float | None]
    per_class_auroc: list[float | None]
    confusion_matrix: list[list[int]]
    per_client: list[ClientMeasures]


def evaluate(
    labels: NDArray[np.integer],
    logits: NDArray[np.floating],
    clients: NDArray[np.integer] | None = None,
    names: Sequence[str] | None = None,
) -> ModelMeasures:
    """Measure a model by its logits for the test images.

    Macro values are means over the classes that occur among the images. Sensitivity has none of its own: it is the
    balanced accuracy.

    `labels`: class indices ``0 .. C - 1``, ``(N,)``. `logits`: the model's outputs, ``(N, C)``; the largest one of a
    row is the predicted class. `clients`: the client that each image is of, ``(N,)``, where the data say so. `names`:
    what the clients are called (default: their numbers). Returns fractions and counts, ready for JSON. None where a
    measure is not defined: sensitivity and AUROC of a class without images, specificity and AUROC of a class that all
    images have, and what needs probabilities where a logit is not finite. `per_client` has the clients that have test
    images. Raises `ValueError` if there are no images, the lengths differ, or a label is outside ``0 .. C - 1``.

    >>> found = evaluate(np.array([0, 1, 1]), np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]]))
    >>> found["per_class_specificity"], found["per_class_auroc"], found["confusion_matrix"]
    ([0.5, 1.0], [1.0, 1.0], [[1, 0], [1, 1]])
    """
    from scipy.special import softmax

    with np.errstate(invalid="ignore"):  # infinite logits have no probabilities
        # Not in float32: it has no numbers between 1 - 6e-8 and 1, and confident predictions would be ties.
        probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    predictions = logits.argmax(axis=1)
    confusion = confusion_matrix(labels, predictions, logits.shape[1])
    specificities, aurocs = specificity(confusion), auroc(labels, probabilities)
    found: ModelMeasures = {
        **classification_measures(confusion),
        "specificity_macro": mean_over_classes(specificities, confusion),
        "auroc_macro": mean_over_classes(aurocs, confusion),
        "calibration_error": or_none(calibration_error(predictions == labels, probabilities.max(axis=1))),
        "per_class_specificity": [or_none(value) for value in specificities],
        "per_class_auroc": [or_none(value) for value in aurocs],
        "confusion_matrix": confusion.tolist(),
        "per_client": [],
    }
    for client in np.unique(clients) if clients is not None else ():
        own = clients == client
        of_client = evaluate(labels[own], logits[own])
        name = str(client) if names is None else names[client]
        measures = {key: of_client[key] for key in OF_CLIENTS}  # type: ignore[literal-required]
        found["per_client"].append({"client": int(client), "name": name, "images": int(own.sum()), **measures})  # type: ignore[typeddict-item]
    return found


def specificity(confusion: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return for each class the share of the other classes' images that are not predicted as this one.

    `confusion`: counts, true class by predicted class, ``(C, C)``. Returns float64, ``(C,)``; NaN for a class that all
    images have.

    >>> specificity(np.array([[3, 1], [2, 2]])).tolist()
    [0.5, 0.75]
    """
    others = confusion.sum() - confusion.sum(axis=1)
    false_alarms = confusion.sum(axis=0) - np.diag(confusion)
    return np.divide(others - false_alarms, others, out=np.full(len(confusion), np.nan), where=others > 0)


def auroc(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each class against the rest, by scikit-learn.

    It is the probability that an image of the class gets a larger probability of it than an image of another class;
    equal ones count half.

    `labels`: class indices, ``(N,)``. `probabilities`: by image and class, ``(N, C)``. Returns float64, ``(C,)``; NaN
    for a class that no image or every image has, and for all where a probability is not finite.
    """
    from sklearn.metrics import roc_auc_score

    found = np.full(probabilities.shape[1], np.nan)
    occurring = np.unique(labels)
    if len(occurring) > 1 and np.isfinite(probabilities).all():
        found[occurring] = roc_auc_score(labels[:, None] == occurring, probabilities[:, occurring], average=None)
    return found


def calibration_error(correct: NDArray[np.bool_], confidence: NDArray[np.floating]) -> float:
    """Return the expected calibration error (Guo et al. 2017): how far confidence is from accuracy, on average.

    Images are put into `BINS` bins by the probability of the predicted class; the error is the mean of the bins'
    differences between mean confidence and accuracy, weighted by their numbers of images. scikit-learn's
    `calibration_curve` has the same bins, but not their sizes.

    `correct`: whether the predicted class of each image is its own, ``(N,)``. `confidence`: the predicted class's
    probability, ``(N,)``. It lies in [0, 1]; NaN if a probability is.

    >>> round(calibration_error(np.array([True, False]), np.array([0.9, 0.9])), 6)
    0.4
    """
    return float(np.abs(calibration_gaps(correct, confidence)).sum() / len(correct))


def calibration_gaps(correct: NDArray[np.bool_], confidence: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sum of confidence less the number of correct predictions in each bin, up to the last that is used."""
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)  # (a, b], as there
    return np.bincount(bins, weights=confidence - correct)  # type: ignore[return-value]


def mean_over_classes(values: NDArray[np.float64], confusion: NDArray[np.integer]) -> float | None:
    """Return the mean over the classes that occur; None where it is not a number."""
    return or_none(values[confusion.any(axis=1)].mean())


def or_none(value: float) -> float | None:
    """Return a number as JSON has it."""
    return float(value) if math.isfinite(value) else None
