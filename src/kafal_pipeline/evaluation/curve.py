"""The learning curve of a run, and the few numbers that summarise it."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from kafal_pipeline.evaluation.measures import aulc
from kafal_pipeline.evaluation.model_measures import ClientMeasures

if TYPE_CHECKING:
    import pandas as pd

    from kafal_pipeline.config import Config


class CycleMetrics(TypedDict):
    """What the evaluation of one cycle writes.

    `labels` and `labelled_fraction` count all clients' labels bought so far; `queried_histogram` those of this cycle by
    class (in cycle 0 the initial pool). What a cycle 0 does not have, a query, is None. `skipped_client_rounds` counts
    how often a client was left out of a round because its training had failed. Results of earlier versions have none of
    the keys from there on.
    """

    cycle: int
    labels: int
    labelled_fraction: float
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    per_class_accuracy: list[float | None]
    classes: list[str]
    queried_histogram: list[int]
    queried_entropy: float | None
    train_seconds: float
    query_seconds: float | None
    evaluate_seconds: float
    bytes_sent: int
    skipped_client_rounds: NotRequired[int]
    specificity_macro: NotRequired[float | None]
    auroc_macro: NotRequired[float | None]
    calibration_error: NotRequired[float | None]
    per_class_specificity: NotRequired[list[float | None]]
    per_class_auroc: NotRequired[list[float | None]]
    confusion_matrix: NotRequired[list[list[int]]]
    per_client: NotRequired[list[ClientMeasures]]
    # Only where people annotate: how many training images have been asked for so far, and what became of them; labelled
    # test images; agreement, the median of the seconds a label took, and the sum in hours.
    annotation_asked: NotRequired[int]
    annotation_labelled: NotRequired[int]
    annotation_skipped: NotRequired[int]
    annotation_unusable: NotRequired[int]
    annotation_unknown_class: NotRequired[int]
    annotation_conflicts: NotRequired[int]
    annotation_open: NotRequired[int]
    annotation_test_labels: NotRequired[int]
    annotation_kappa: NotRequired[float | None]
    annotation_seconds_per_label: NotRequired[float | None]
    annotation_hours: NotRequired[float | None]


OF_PEOPLE = tuple(name for name in CycleMetrics.__annotations__ if name.startswith("annotation_"))
NO_COUNTS = ("annotation_kappa", "annotation_seconds_per_label", "annotation_hours")
COUNTS = (
    "cycle",
    "labels",
    "bytes_sent",
    "skipped_client_rounds",
    *(name for name in OF_PEOPLE if name not in NO_COUNTS),
)
MACROS = ("specificity_macro", "auroc_macro", "calibration_error")
COLUMNS = (
    *("cycle", "labels", "labelled_fraction", "accuracy", "balanced_accuracy", "macro_f1", "aulc"),
    *MACROS,
    *("queried_entropy", "train_seconds", "query_seconds", "evaluate_seconds", "bytes_sent"),
    "skipped_client_rounds",
)


def learning_curve(metrics: Sequence[CycleMetrics]) -> pd.DataFrame:
    """Put the cycles' metrics into one table.

    `metrics`: one mapping a cycle, in any order. Returns one row a cycle, in order: `COLUMNS`, `OF_PEOPLE` where people
    annotate, then ``accuracy_<class>`` for every class. Fractions, seconds and bytes; `aulc` covers the cycles up to
    the row's. Absent values are NaN.
    """
    import pandas as pd

    rows = sorted(metrics, key=lambda row: row["cycle"])
    fractions, accuracies = [row["labelled_fraction"] for row in rows], [row["accuracy"] for row in rows]
    values: dict[str, list[Any]] = {
        name: [row.get(name) for row in rows] for name in (*COLUMNS, *people_columns(rows[-1]))
    }
    values["skipped_client_rounds"] = [row.get("skipped_client_rounds", 0) for row in rows]
    values["aulc"] = [aulc(fractions[:end], accuracies[:end]) for end in range(1, len(rows) + 1)]
    for index, name in enumerate(rows[0]["classes"]):
        values[f"accuracy_{name}"] = [row["per_class_accuracy"][index] for row in rows]
    return pd.DataFrame(values).astype({name: "int64" if name in COUNTS else "float64" for name in values})


def people_columns(found: Container[str]) -> list[str]:
    """Return which measures of what people did are among the `found` names: none where an oracle labels."""
    return [name for name in OF_PEOPLE if name in found]


def summary(curve: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Sum a run up in scalars: what was run, what it reached, and under ``cost`` the seconds it took.

    Seconds differ from run to run, everything else is reproducible; hence they stand apart.

    `curve`: the table of `learning_curve`. Returns strings, ints and floats only, ready for JSON; values that are not
    numbers are left out.
    """
    last = curve.iloc[-1]
    results = {
        "dataset": config.dataset.folder,
        "query": config.query.label,
        "update": config.update.label,
        "seed": config.seed,
        "cycles": len(curve),
        "labels": int(last["labels"]),
        "labelled_fraction": float(last["labelled_fraction"]),
        "aulc": float(last["aulc"]),
        **{f"final_{name}": float(last[name]) for name in ("accuracy", "balanced_accuracy", "macro_f1", *MACROS)},
        "bytes_sent": int(curve["bytes_sent"].sum()),
        "skipped_client_rounds": int(curve["skipped_client_rounds"].sum()),
        **{name: int(last[name]) if name in COUNTS else float(last[name]) for name in people_columns(curve)},
    }
    seconds = {name: float(curve[name].sum(min_count=1)) for name in ("train_seconds", "query_seconds")}
    return {**_without_nan(results), "cost": _without_nan(seconds)}


def class_table(last: CycleMetrics) -> pd.DataFrame:
    """Put what the last cycle says of each class into one table.

    Returns one row a class: `class` (its name), `images` in the test set, `sensitivity`, `specificity`, `auroc`. What
    is not defined, or was not measured by the version that made the results, is missing.
    """
    import pandas as pd

    absent = [None] * len(last["classes"])
    images = [sum(row) for row in last.get("confusion_matrix", [])] or absent
    measures = {
        "sensitivity": last["per_class_accuracy"],
        "specificity": last.get("per_class_specificity", absent),
        "auroc": last.get("per_class_auroc", absent),
    }
    table = pd.DataFrame({"class": last["classes"], "images": pd.array(images, dtype="Int64"), **measures})
    return table.astype(dict.fromkeys(measures, "float64"))


def client_table(last: CycleMetrics) -> pd.DataFrame:
    """Put what the last cycle says of each client with test images of its own into one table.

    Returns one row a client, the columns those of `ClientMeasures`; no rows where the data do not say whose the images
    are.
    """
    import pandas as pd

    columns = ["client", "name", "images", "accuracy", "balanced_accuracy", *MACROS]
    return pd.DataFrame(last.get("per_client", []), columns=columns).astype(dict.fromkeys(MACROS, "float64"))


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Drop what JSON has no word for."""
    return {key: value for key, value in values.items() if not isinstance(value, float) or math.isfinite(value)}
