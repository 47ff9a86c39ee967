"""A comparison of strategies: what is missing of its runs is run, side by side, and all of them are reported on."""

from kafal_pipeline.pipelines.compare.pipeline import create_pipeline

__all__ = ["create_pipeline"]
