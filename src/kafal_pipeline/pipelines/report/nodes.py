"""The nodes of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.evaluation import (
    CycleMetrics,
    class_table,
    client_classes_figure,
    client_table,
    confusion_figure,
    learning_curve,
    learning_curve_figure,
    queried_by_client_figure,
    queried_classes_figure,
    summary,
)
from kafal_pipeline.pipelines.annotations import DataFrame, Figure, Parameters
from kafal_pipeline.runs.gpu_trial import Trial


def summarise(parameters: Parameters, *metrics: CycleMetrics) -> tuple[DataFrame, dict[str, Any], DataFrame, DataFrame]:
    """Return the learning curve of a run, its summary, and what it reached in each class and for each client."""
    curve = learning_curve(metrics)
    return curve, summary(curve, resolve(parameters)), class_table(metrics[-1]), client_table(metrics[-1])


def draw(
    parameters: Parameters,
    curve: DataFrame,
    split_table: DataFrame,
    images: ImageData,
    pool: DataFrame,
    *metrics: CycleMetrics,
) -> tuple[Figure, ...]:
    """Return the figures of the learning curve, the clients' classes, confusion, and what was queried, also by client.

    `pool` is the last cycle's.
    """
    names = images.client_names if resolve(parameters).partition.method == "natural" else None
    figures = _figures(parameters, curve, split_table, images.classes, metrics)
    return *figures, queried_by_client_figure(pool, images.classes, names)


def summarise_trial(parameters: Parameters, trial: Trial) -> tuple[DataFrame, dict[str, Any], DataFrame, DataFrame]:
    """Return the tables of `summarise` for a trial on another machine; its curve has samples a second."""
    config, rows = resolve(parameters), trial.metrics
    curve = learning_curve(rows)
    curve["samples_per_second"] = [row["samples_per_second"] for row in rows]  # type: ignore[typeddict-item]
    results = summary(curve, config)
    samples = sum(row["samples"] for row in rows)  # type: ignore[typeddict-item]
    memory = {key: value for key, value in trial.machine.items() if key.startswith("peak_")}
    results["cost"] |= {"samples_per_second": samples / sum(row["train_seconds"] for row in rows), **memory}
    versions = {key: value for key, value in trial.machine.items() if key not in memory}
    done = {"finished": trial.finished, "cycles": trial.asked, "precision": config.training.precision}
    results |= {"trial": {**done, **versions}}
    return curve, results, class_table(rows[-1]), client_table(rows[-1])


def draw_trial(parameters: Parameters, curve: DataFrame, trial: Trial) -> tuple[Figure, ...]:
    """Return the figures of `draw` for a trial on another machine, whose pool stayed there: all but the last."""
    import pandas as pd

    return _figures(parameters, curve, pd.DataFrame(trial.split_table), trial.metrics[0]["classes"], trial.metrics)


def _figures(
    parameters: Parameters,
    curve: DataFrame,
    split_table: DataFrame,
    classes: Sequence[str],
    metrics: Sequence[CycleMetrics],
) -> tuple[Figure, ...]:
    config = resolve(parameters)
    title = f"{config.dataset.folder}, {config.query.label} with {config.update.label}, seed {config.seed}"
    return (
        learning_curve_figure(curve, title),
        client_classes_figure(split_table, classes),
        confusion_figure(metrics[-1].get("confusion_matrix", []), classes),
        queried_classes_figure({row["cycle"]: row["queried_histogram"] for row in metrics}, classes),
    )
