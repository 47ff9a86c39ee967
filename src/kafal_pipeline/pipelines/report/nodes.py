"""The nodes of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.evaluation import (
    CycleMetrics,
    client_classes_figure,
    learning_curve,
    learning_curve_figure,
    queried_classes_figure,
    summary,
)
from kafal_pipeline.pipelines.annotations import DataFrame, Figure, Parameters
from kafal_pipeline.runs.gpu_trial import Trial


def summarise(parameters: Parameters, *metrics: CycleMetrics) -> tuple[DataFrame, dict[str, Any]]:
    """Return the learning curve of a run and its summary."""
    curve = learning_curve(metrics)
    return curve, summary(curve, resolve(parameters))


def draw(
    parameters: Parameters,
    curve: DataFrame,
    split_table: DataFrame,
    images: ImageData,
    *metrics: CycleMetrics,
) -> tuple[Figure, Figure, Figure]:
    """Return the figures of the learning curve, of the clients' classes and of the queried classes."""
    return _figures(parameters, curve, split_table, images.classes, metrics)


def summarise_trial(parameters: Parameters, trial: Trial) -> tuple[DataFrame, dict[str, Any]]:
    """Return the learning curve of a trial on another machine, with its samples a second, and its summary."""
    config, rows = resolve(parameters), trial.metrics
    curve = learning_curve(rows)
    curve["samples_per_second"] = [row["samples_per_second"] for row in rows]  # type: ignore[typeddict-item]
    results = summary(curve, config)
    samples = sum(row["samples"] for row in rows)  # type: ignore[typeddict-item]
    memory = {key: value for key, value in trial.machine.items() if key.startswith("peak_")}
    results["cost"] |= {"samples_per_second": samples / sum(row["train_seconds"] for row in rows), **memory}
    versions = {key: value for key, value in trial.machine.items() if key not in memory}
    done = {"finished": trial.finished, "cycles": trial.asked, "precision": config.training.precision}
    return curve, {**results, "trial": {**done, **versions}}


def draw_trial(parameters: Parameters, curve: DataFrame, trial: Trial) -> tuple[Figure, Figure, Figure]:
    """Return the figures of `draw` for a trial on another machine."""
    import pandas as pd

    return _figures(parameters, curve, pd.DataFrame(trial.split_table), trial.metrics[0]["classes"], trial.metrics)


def _figures(
    parameters: Parameters,
    curve: DataFrame,
    split_table: DataFrame,
    classes: Sequence[str],
    metrics: Sequence[CycleMetrics],
) -> tuple[Figure, Figure, Figure]:
    config = resolve(parameters)
    title = f"{config.dataset.folder}, {config.query.label} with {config.update.label}, seed {config.seed}"
    return (
        learning_curve_figure(curve, title),
        client_classes_figure(split_table, classes),
        queried_classes_figure({row["cycle"]: row["queried_histogram"] for row in metrics}, classes),
    )
