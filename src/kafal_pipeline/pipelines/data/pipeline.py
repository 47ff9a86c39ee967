"""The data pipeline."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from kafal_pipeline.data import ImageData
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.pipelines.data.nodes import load_images


def create_pipeline(root: Path = Path()) -> Pipeline:
    """Return the pipeline ``parameters -> images``; relative paths start from `root`, the project's folder."""

    def load(parameters: Parameters) -> ImageData:
        return load_images(parameters, root)

    return Pipeline([node(load, inputs="parameters", outputs="images", name="data.load", tags=["data"])])
