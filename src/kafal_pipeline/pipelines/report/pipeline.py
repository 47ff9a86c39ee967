"""The pipeline of the report."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from kafal_pipeline.pipelines.report.nodes import draw, summarise
from kafal_pipeline.runs.layout import cycle_name

TABLES = ["learning_curve", "summary", "class_table", "client_table"]
FIGURES = [
    *("learning_curve_figure", "client_classes_figure", "confusion_figure"),
    *("queried_classes_figure", "queried_by_client_figure"),
]


def create_pipeline(cycles: int, *, people: bool = False) -> Pipeline:
    """Return the pipeline that sums up a run of `cycles` cycles.

    Parameters
    ----------
    cycles
        Number of cycles T; the metrics of the cycles are the datasets ``cycle_00.metrics`` .. ``cycle_<T-1>.metrics``,
        the last pool is ``cycle_<T-1>.pool``.
    people
        Whether people annotate: a figure of what that costs is added.
    """
    metrics = [f"{cycle_name(cycle)}.metrics" for cycle in range(cycles)]
    pool = f"{cycle_name(cycles - 1)}.pool"
    return Pipeline(
        [
            node(
                summarise,
                inputs=["parameters", *metrics],
                outputs=TABLES,
                name="report.summarise",
                tags=["report"],
            ),
            node(
                draw,
                inputs=["parameters", "learning_curve", "split_table", "images", pool, *metrics],
                outputs=[*FIGURES, *(["labelling_cost_figure"] if people else [])],
                name="report.draw",
                tags=["report"],
            ),
        ]
    )
