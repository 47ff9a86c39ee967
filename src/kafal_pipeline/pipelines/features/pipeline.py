"""The pipeline of features."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from kafal_pipeline.data import ImageData
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.pipelines.features.nodes import compute_features


def create_pipeline(root: Path = Path()) -> Pipeline:
    """Return the pipeline ``images, parameters -> features``; relative paths start from `root`, the project."""

    def compute(images: ImageData, parameters: Parameters) -> ImageData:
        return compute_features(images, parameters, root)

    return Pipeline([node(compute, ["images", "parameters"], "features", name="features.compute", tags=["features"])])
