"""Kedro nodes of a trial whose labels people give: they ask, and end the command until there are answers."""

from __future__ import annotations

from typing import Any

from kafal_pipeline.annotation.pools import (
    annotated_pool,
    first_choice,
    labels_of_tests,
    later_choice,
    unlabelled_pool,
)
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, check_origin
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters
from kafal_pipeline.pipelines.fal.checks import checked_pool


def ask_for_initial_pool(
    resources: Resources,
    splits: list[list[int]],
    split_origin: dict[str, Any],
    images: ImageData,
    parameters: Parameters,
) -> tuple[DataFrame, DataFrame]:
    """Ask people for each client's first labels; return the pool and what they answered, once they have."""
    config = resolve(parameters)
    check_origin(split_origin, config, images)
    choice = first_choice(splits, images, config)
    annotations = resources.desk(config, images).annotations(0, choice, None)
    pool = annotated_pool(unlabelled_pool(splits, images.train_labels), annotations, 0)
    for kind, labels in (("training", pool["label"]), ("test", labels_of_tests(images, annotations))):
        if not (labels >= 0).any():
            raise UserError(
                f"annotation: people have declined every {kind} image that they answered, so there is nothing to "
                f"{'train on' if kind == 'training' else 'measure with'}. Give some of them a label (kedro run "
                "--pipeline annotate shows earlier answers again with the arrow keys), or set annotation.refill."
            )
    return pool, annotations


def ask_for_queried(
    resources: Resources,
    cycle: int,
    pool: DataFrame,
    queried: DataFrame,
    annotations: DataFrame,
    images: ImageData,
    parameters: Parameters,
) -> tuple[DataFrame, DataFrame]:
    """Ask people for the labels of the queried samples; return the pool and all that they answered, once they have."""
    config = resolve(parameters)
    before = checked_pool(pool, config, images, cycle - 1)
    choice = later_choice(before, queried, config)
    answered = resources.desk(config, images).annotations(cycle, choice, annotations)
    return annotated_pool(before, answered, cycle), answered
