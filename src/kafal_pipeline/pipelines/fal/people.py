"""Kedro nodes of a trial whose labels people give: they ask, and end the command until there are answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafal_pipeline.annotation.pools import (
    annotated_pool,
    first_choice,
    labels_of_tests,
    later_choice,
    unlabelled_pool,
)
from kafal_pipeline.annotation.verdicts import OPEN
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, check_origin
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters
from kafal_pipeline.pipelines.fal.checks import checked_pool
from kafal_pipeline.runs import provenance, resume
from kafal_pipeline.runs.layout import Layout, cycle_name

if TYPE_CHECKING:
    from kafal_pipeline.annotation.desk import Desk


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
    choice, desk = first_choice(splits, images, config), resources.desk(config, images)
    check_finished(Layout(resources.root, config), desk)
    annotations = desk.annotations(0, choice, None)
    pool = annotated_pool(unlabelled_pool(splits, images.train_labels), annotations, 0)
    for kind, labels in (("training", pool["label"]), ("test", labels_of_tests(images, annotations))):
        if not (labels >= 0).any():
            raise UserError(
                f"annotation: people have declined every {kind} image that they answered, so there is nothing to "
                f"{'train on' if kind == 'training' else 'measure with'}. Give some of them a label (kedro run "
                "--pipeline annotate shows earlier answers again with the arrow keys), or set annotation.refill."
            )
    return pool, annotations


def check_finished(run: Layout, desk: Desk) -> None:
    """Refuse to do a finished run again whose answers have changed since: its results would be lost; raises UserError.

    With the same answers it has the same results.
    """
    found = provenance.read(run)
    last = run.outputs / cycle_name(run.config.cycles - 1) / "annotations.parquet"
    if run.config.restart is not False or found is None or not found.finished or not last.is_file():
        return
    import pandas as pd

    verdicts, classes = desk.verdicts(), desk.images.classes
    then = pd.read_parquet(last, columns=["id", "outcome", "verdict"]).drop_duplicates("id")
    changed = []
    for sample, outcome, verdict in zip(then["id"], then["outcome"], then["verdict"], strict=True):
        now, label = verdicts.get(sample, OPEN), classes[verdict] if verdict >= 0 else None
        if (now.outcome, now.label) != (outcome, label):
            changed.append(sample)
    if changed:
        raise UserError(
            f"{run.outputs}: a finished run is there, and what people say of {len(changed)} of its images has changed "
            f"since, such as {changed[0]}. {resume.KEEP}"
        )


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
