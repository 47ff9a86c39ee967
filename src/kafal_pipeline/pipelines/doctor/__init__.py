"""Checks that everything the configured run needs is there, and estimates how long it will take."""

from kafal_pipeline.pipelines.doctor.pipeline import create_pipeline

__all__ = ["create_pipeline"]
