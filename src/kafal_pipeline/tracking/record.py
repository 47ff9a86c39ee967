"""Translates the results of a run for the tracker: names, steps and folders."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.common.files import file_digest
from kafal_pipeline.evaluation.rounds import aggregated
from kafal_pipeline.tracking.tracker import NullTracker

if TYPE_CHECKING:
    import pandas as pd

    from kafal_pipeline.config import Config
    from kafal_pipeline.data.images import ImageData

FOLDERS = {
    **dict.fromkeys((".png", ".svg", ".pdf", ".html"), "figures"),
    **dict.fromkeys((".csv", ".json", ".parquet", ".md"), "tables"),
}
"""Folders of a run's files in MLflow, by their suffix; others are in its top folder."""

ROUND = "train_round_"
"""Beginning of the names of the rounds' numbers. MLflow draws charts in the order of the alphabet, `accuracy` first;
but a prefix with a slash would make a section of its own, before all names that have none."""

OF_ROUNDS = ("loss", "lr", "seconds")  # columns that are recorded; the others are in the table
OF_THE_RUN = {"bytes_sent": "total_bytes_sent"}  # numbers of the run whose names those of its cycles have already
NO_MEASURES = ("cycle", "cycles", "seed")  # numbers that only name a run or a cycle
MOST_PARTS = 20  # of more classes or clients MLflow gets the table alone: it draws a chart for each number
LONGEST_NAME = 100  # characters of a class in a metric's name, which may have 250


def record_rounds(tracker: NullTracker, rounds: pd.DataFrame, per_cycle: int) -> None:
    """Record the mean over clients of loss, learning rate and seconds as ``train_round_<column>``.

    Clients that were left out of a round are in none of its means, and counted as ``train_round_skipped_clients`` where
    there are any. The step is the number of the round counted from the run's first: ``cycle * per_cycle + round``.
    """
    trained = rounds.groupby(["cycle", "round"]).size()
    valid = aggregated(rounds).groupby(["cycle", "round"])
    skipped = (trained - valid.size()).to_dict()
    means = valid.mean(numeric_only=True).drop(columns="client").reset_index()
    for row in means.to_dict("records"):
        cycle, round_ = int(row["cycle"]), int(row["round"])
        values = {f"{ROUND}{column}": float(row[column]) for column in OF_ROUNDS if column in row}
        if skipped[cycle, round_]:
            values[f"{ROUND}skipped_clients"] = float(skipped[cycle, round_])
        tracker.metrics(values, step=cycle * per_cycle + round_)


def record_metrics(tracker: NullTracker, metrics: Mapping[str, Any]) -> None:
    """Record the measures of one cycle; the step is the number of labels, so that MLflow draws learning curves.

    Classes and clients are left to `record_parts`, after the last cycle.
    """
    values = finite_numbers(metrics)
    step = int(values["labels"])  # recorded as well: a chart's axis can have a metric's name, but a step is a "Step"
    tracker.metrics({key: value for key, value in values.items() if key not in NO_MEASURES}, step=step, durable=True)


def record_summary(tracker: NullTracker, summary: Mapping[str, Any], step: int) -> None:
    """Record the numbers of the whole run at its last number of labels."""
    numbers = finite_numbers(summary)
    values = {OF_THE_RUN.get(key, key): value for key, value in numbers.items() if key not in NO_MEASURES}
    tracker.metrics(values, step=step, durable=True)


def record_parts(tracker: NullTracker, kind: str, table: pd.DataFrame, step: int) -> None:
    """Record what the final model reaches in each class or client as ``<kind>/<its name>/<column>``.

    The table has one row for each, named by the index. What MLflow does not allow in a metric's name becomes a ``_``;
    where names become one or are too long, the row's number stands for them.
    """
    names = [re.sub(r"[^\w -]", "_", str(name)) for name in table.index]
    if len(set(names)) < len(names) or max(map(len, names), default=0) > LONGEST_NAME:
        names = [str(number) for number in range(len(table))]
    if len(names) <= MOST_PARTS:
        for name, row in zip(names, table.to_dict("records"), strict=True):
            values = {f"per_{kind}_{name}_{column}": value for column, value in row.items()}
            tracker.metrics(finite_numbers(values), step=step, durable=True)


def record_split(tracker: NullTracker, split: Path) -> None:
    """Record the split's hash and file: which client holds which sample."""
    tracker.tags({"split_sha256": file_digest(split)})
    tracker.artifact(split, "split")


def record_results(tracker: NullTracker, folder: Path) -> None:
    """Record every file of the run's report."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            parts = (FOLDERS.get(path.suffix.lower(), ""), *path.relative_to(folder).parts[:-1])
            tracker.artifact(path, "/".join(part for part in parts if part))


def record_model(tracker: NullTracker, state: Path, config: Config, images: ImageData, labels: int) -> None:
    """Record the final global model, trained on that many labels."""
    height, width, channels = images.train_images.shape[1:]
    tracker.model(
        state,
        model={
            **config.model.model_dump(mode="json", exclude_defaults=True),
            "name": config.model.name,
            "in_channels": images.channels,
            "num_classes": images.num_classes,
        },
        image_shape=[int(channels), int(height), int(width)],
        mean=[float(value) for value in images.mean],
        std=[float(value) for value in images.std],
        classes=list(images.classes),
        step=labels,
    )


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the items that are finite numbers.

    Examples
    --------
    >>> finite_numbers({"accuracy": 0.5, "name": "ksas", "done": True, "gap": float("nan")})
    {'accuracy': 0.5}
    """
    numbers = {key: value for key, value in values.items() if isinstance(value, Real) and not isinstance(value, bool)}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}
