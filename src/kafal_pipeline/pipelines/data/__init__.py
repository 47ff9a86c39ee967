"""Turns raw files into a store of images."""

from kafal_pipeline.pipelines.data.pipeline import create_pipeline

__all__ = ["create_pipeline"]
