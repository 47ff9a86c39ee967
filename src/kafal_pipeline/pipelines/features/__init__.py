"""Computes features of images with a fixed network."""

from kafal_pipeline.pipelines.features.pipeline import create_pipeline

__all__ = ["create_pipeline"]
