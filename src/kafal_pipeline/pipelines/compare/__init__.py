"""Compares strategies: runs what is missing, side by side, and reports on all runs."""

from kafal_pipeline.pipelines.compare.pipeline import create_pipeline

__all__ = ["create_pipeline"]
