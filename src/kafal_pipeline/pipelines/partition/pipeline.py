"""The partition pipeline."""

from __future__ import annotations

from kedro.pipeline import Pipeline, node

from kafal_pipeline.pipelines.partition.nodes import split_clients


def create_pipeline(**_: object) -> Pipeline:
    """Return the pipeline ``images, parameters -> splits, split_table``."""
    return Pipeline(
        [
            node(
                split_clients,
                inputs=["images", "parameters"],
                outputs=["splits", "split_table"],
                name="partition.split",
                tags=["partition"],
            )
        ]
    )
