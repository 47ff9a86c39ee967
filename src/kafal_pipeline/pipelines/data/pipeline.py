"""The data pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from kafal_pipeline.pipelines.data.nodes import load_images


def create_pipeline(**_: object) -> Pipeline:
    """Return the pipeline ``parameters -> images``."""
    return Pipeline([node(load_images, inputs="parameters", outputs="images", name="data.load", tags=["data"])])
