"""The nodes of the report."""

from __future__ import annotations

from typing import Any

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.evaluation import (
    CycleMetrics,
    class_table,
    client_classes_figure,
    client_table,
    confusion_figure,
    labelling_cost_figure,
    learning_curve,
    learning_curve_figure,
    queried_by_client_figure,
    queried_classes_figure,
    summary,
)
from kafal_pipeline.pipelines.annotations import DataFrame, Figure, Parameters


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

    `pool` is the last cycle's. Where people annotate, a figure of what that costs comes last.
    """
    config = resolve(parameters)
    names = images.clients_of(config.partition.method)
    title = f"{config.dataset.folder}, {config.query.label} with {config.update.label}, seed {config.seed}"
    return (
        learning_curve_figure(curve, title),
        client_classes_figure(split_table, images.classes, names),
        confusion_figure(metrics[-1].get("confusion_matrix", []), images.classes),
        queried_classes_figure({row["cycle"]: row["queried_histogram"] for row in metrics}, images.classes),
        queried_by_client_figure(pool, images.classes, names),
        *([labelling_cost_figure(curve, title)] if config.annotation.source == "people" else []),
    )
