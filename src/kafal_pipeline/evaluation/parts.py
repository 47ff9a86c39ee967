"""Measures of a model on test images that stay where they are: each client's part, and what the parts say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.evaluation.measures import classification_measures, confusion_matrix
from kafal_pipeline.evaluation.model_measures import (
    BINS,
    ClientMeasures,
    ModelMeasures,
    calibration_gaps,
    evaluate,
    mean_over_classes,
    or_none,
    specificity,
)


@dataclass(frozen=True)
class Part:
    """What a client says of a model on its test images.

    Attributes
    ----------
    confusion
        Classes by predicted classes, int64 ``(C, C)``.
    gaps
        `calibration_gaps`, float64 ``(15,)``.
    auroc
        The mean over the classes; None where not defined.
    """

    confusion: NDArray[np.int64]
    gaps: NDArray[np.float64]
    auroc: float | None


def part_of(labels: NDArray[np.int64], logits: NDArray[np.float32]) -> Part:
    """Measure a model by its logits ``(N, C)`` for a client's test images, whose `labels` are ``(N,)``."""
    from scipy.special import softmax

    classes = logits.shape[1]
    if not len(labels):
        return Part(np.zeros((classes, classes), dtype=np.int64), np.zeros(BINS), None)
    with np.errstate(invalid="ignore"):  # infinite logits have no probabilities
        probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    predictions = logits.argmax(axis=1)
    gaps = calibration_gaps(predictions == labels, probabilities.max(axis=1))
    gaps = np.pad(gaps, (0, BINS - len(gaps)))
    return Part(confusion_matrix(labels, predictions, classes), gaps, evaluate(labels, logits)["auroc_macro"])


def joined(parts: Mapping[int, Part], names: Sequence[str]) -> ModelMeasures:
    """Return the measures of all clients' test images together, from their parts.

    AUROC compares every image with every other, so there is none of all clients together: None.

    Raises
    ------
    ValueError
        If no client has a test image.
    """
    confusion = np.sum([part.confusion for part in parts.values()], axis=0)
    return {
        **classification_measures(confusion),
        "specificity_macro": mean_over_classes(specificity(confusion), confusion),
        "auroc_macro": None,
        "calibration_error": _calibration_error(np.sum([part.gaps for part in parts.values()], axis=0), confusion),
        "per_class_specificity": [or_none(value) for value in specificity(confusion)],
        "per_class_auroc": [None] * len(confusion),
        "confusion_matrix": confusion.tolist(),
        "per_client": [
            _of_client(client, names[client], part) for client, part in sorted(parts.items()) if part.confusion.any()
        ],
    }


def _of_client(client: int, name: str, part: Part) -> ClientMeasures:
    found = classification_measures(part.confusion)
    return {
        "client": client,
        "name": name,
        "images": int(part.confusion.sum()),
        "accuracy": found["accuracy"],
        "balanced_accuracy": found["balanced_accuracy"],
        "specificity_macro": mean_over_classes(specificity(part.confusion), part.confusion),
        "auroc_macro": part.auroc,
        "calibration_error": _calibration_error(part.gaps, part.confusion),
    }


def _calibration_error(gaps: NDArray[np.float64], confusion: NDArray[np.int64]) -> float | None:
    return or_none(float(np.abs(gaps).sum() / confusion.sum()))
