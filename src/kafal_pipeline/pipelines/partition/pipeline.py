"""The partition pipeline."""

from __future__ import annotations

from pathlib import Path

from kedro.pipeline import Pipeline, node

from kafal_pipeline.data import ImageData
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters
from kafal_pipeline.pipelines.partition.nodes import split_clients


def create_pipeline(root: Path = Path()) -> Pipeline:
    """Return the pipeline ``images, parameters -> splits, split_table``; relative paths start from `root`."""

    def split(images: ImageData, parameters: Parameters) -> tuple[list[list[int]], DataFrame]:
        return split_clients(images, parameters, root)

    return Pipeline(
        [
            node(
                split,
                inputs=["images", "parameters"],
                outputs=["splits", "split_table"],
                name="partition.split",
                tags=["partition"],
            )
        ]
    )
