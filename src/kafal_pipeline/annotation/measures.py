"""Counts of what people were asked and answered in a run, their agreement and their speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafal_pipeline.annotation.answers import Answer
from kafal_pipeline.annotation.verdicts import Outcome, Verdict, kappa

if TYPE_CHECKING:
    import pandas as pd

OUTCOMES: dict[Outcome, str] = {
    "labelled": "annotation_labelled",
    "skipped": "annotation_skipped",
    "unusable": "annotation_unusable",
    "unknown_class": "annotation_unknown_class",
    "conflict": "annotation_conflicts",
    "open": "annotation_open",
}
"""The measure that counts each outcome, of training images."""


def annotation_measures(annotations: pd.DataFrame) -> dict[str, Any]:
    """Return the measures of a run's annotations up to a cycle; ``annotation_kappa`` and seconds are None if unknown.

    Counts are of training images, but for ``annotation_test_labels``. ``annotation_seconds_per_label`` is the median
    over answers, ``annotation_hours`` the sum of all that are known.
    """
    images = annotations.drop_duplicates("id")
    trained = images.loc[images["part"] == "train", "outcome"].value_counts()
    seconds = annotations["seconds"].dropna()
    return {
        "annotation_asked": int(trained.sum()),
        **{name: int(trained.get(outcome, 0)) for outcome, name in OUTCOMES.items()},
        "annotation_test_labels": int(((images["part"] == "test") & (images["outcome"] == "labelled")).sum()),
        "annotation_kappa": kappa(_verdicts(annotations)),
        "annotation_seconds_per_label": float(seconds.median()) if len(seconds) else None,
        "annotation_hours": float(seconds.sum() / 3600) if len(seconds) else None,
    }


def _verdicts(annotations: pd.DataFrame) -> dict[str, Verdict]:
    """Return what kappa needs of the images that somebody labelled."""
    found: dict[str, list[Answer]] = {}
    for row in annotations[annotations["status"] == "labelled"].itertuples():
        answer = Answer(
            str(row.id), "labelled", str(row.label), str(row.annotator), str(row.time), str(row.source), 0, ""
        )
        found.setdefault(answer.sample, []).append(answer)
    return {sample: Verdict("labelled", None, tuple(answers)) for sample, answers in found.items()}
