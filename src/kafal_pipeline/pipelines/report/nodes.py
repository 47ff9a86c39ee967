"""The nodes of the report."""

from __future__ import annotations

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
    config = resolve(parameters)
    title = f"{config.dataset.folder}, {config.query.label} with {config.update.label}, seed {config.seed}"
    return (
        learning_curve_figure(curve, title),
        client_classes_figure(split_table, images.classes),
        queried_classes_figure({row["cycle"]: row["queried_histogram"] for row in metrics}, images.classes),
    )
