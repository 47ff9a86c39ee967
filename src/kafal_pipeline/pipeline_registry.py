"""The pipelines of this project."""

from __future__ import annotations

import warnings

from kedro.pipeline import Pipeline

from kafal_pipeline.pipelines import compare, data, doctor, fal, features, partition, report
from kafal_pipeline.pipelines.annotate import imports, page, status
from kafal_pipeline.settings import current_run


def register_pipelines() -> dict[str, Pipeline]:
    """Return all pipelines, unrolled for the number of cycles in the parameters (``--params cycles=4`` included)."""
    # A cycle reads the one before, so that names with a namespace cross namespaces on purpose.
    warnings.filterwarnings("ignore", message="One or more dataset names contain", category=UserWarning)
    cycles = current_run.config.cycles
    root, options = current_run.root, current_run.session.options
    data_pipeline, partition_pipeline = data.create_pipeline(root), partition.create_pipeline(root)
    features_pipeline = features.create_pipeline(root)
    people = current_run.config.annotation.source == "people"
    trained_on = current_run.layout.data.name
    prepared = data_pipeline if trained_on == "images" else data_pipeline + features_pipeline
    trial = fal.create_pipeline(cycles, current_run.resources, people=people, data=trained_on) + report.create_pipeline(
        cycles, people=people
    )
    whole = prepared + partition_pipeline + trial
    return {
        "__default__": whole,
        "fal": whole,
        "data": data_pipeline,
        "features": data_pipeline + features_pipeline,
        "partition": partition_pipeline,
        "trial": trial,
        "compare": prepared + compare.create_pipeline(current_run.session, current_run.resources),
        "report": report.create_pipeline(cycles, people=people),
        "annotate": data_pipeline + page.create_pipeline(root, options),
        "doctor": doctor.create_pipeline(root),
        "annotate_import": imports.create_pipeline(root, options),
        "annotate_status": status.create_pipeline(root, options),
    }
