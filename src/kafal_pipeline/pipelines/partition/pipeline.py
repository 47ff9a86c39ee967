"""The partition pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline, node

from kafal_pipeline.data import ImageData
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters
from kafal_pipeline.pipelines.partition.nodes import split_clients


def create_pipeline(root: Path = Path()) -> Pipeline:
    """Return the pipeline ``images, parameters -> splits, split_table, split_origin``.

    Relative paths start from `root`, the project's folder.
    """

    def split(images: ImageData, parameters: Parameters) -> tuple[list[list[int]], DataFrame, dict[str, Any]]:
        return split_clients(images, parameters, root)

    return Pipeline(
        [
            node(
                split,
                inputs=["images", "parameters"],
                outputs=["splits", "split_table", "split_origin"],
                name="partition.split",
                tags=["partition"],
            )
        ]
    )
