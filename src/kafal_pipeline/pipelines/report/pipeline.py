"""The pipeline of the report."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from kafal_pipeline.pipelines.report.nodes import draw, draw_trial, summarise, summarise_trial
from kafal_pipeline.runs import gpu_trial

TABLES = ["learning_curve", "summary", "class_table", "client_table"]
FIGURES = ["learning_curve_figure", "client_classes_figure", "confusion_figure", "queried_classes_figure"]
BY_CLIENT = "queried_by_client_figure"


def create_pipeline(cycles: int) -> Pipeline:
    """Return the pipeline that sums up a run of `cycles` cycles.

    Parameters
    ----------
    cycles
        Number of cycles T; the metrics of the cycles are the datasets ``cycle_00.metrics`` .. ``cycle_<T-1>.metrics``,
        the last pool is ``cycle_<T-1>.pool``.
    """
    metrics = [f"cycle_{cycle:02d}.metrics" for cycle in range(cycles)]
    pool = f"cycle_{cycles - 1:02d}.pool"
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
                outputs=[*FIGURES, BY_CLIENT],
                name="report.draw",
                tags=["report"],
            ),
        ]
    )


def create_trial_pipeline(path: str) -> Pipeline:
    """Return the pipeline that sums up the trial in the file `path`, without images or a split of this machine."""

    def read_trial() -> gpu_trial.Trial:
        return gpu_trial.read(path)

    return Pipeline(
        [
            node(read_trial, inputs=None, outputs="trial", name="report.read", tags=["report"]),
            node(
                summarise_trial,
                inputs=["parameters", "trial"],
                outputs=TABLES,
                name="report.summarise",
                tags=["report"],
            ),
            node(
                draw_trial,
                inputs=["parameters", "learning_curve", "trial"],
                outputs=FIGURES,
                name="report.draw",
                tags=["report"],
            ),
        ]
    )
