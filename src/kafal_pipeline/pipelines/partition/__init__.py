"""Splits a data set among clients."""

from kafal_pipeline.pipelines.partition.pipeline import create_pipeline

__all__ = ["create_pipeline"]
