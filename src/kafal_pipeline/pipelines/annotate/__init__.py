"""People label images: the labelling page."""

from kafal_pipeline.pipelines.annotate.page import create_pipeline

__all__ = ["create_pipeline"]
