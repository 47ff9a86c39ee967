"""The report of one run: its learning curve, its summary and its figures."""

from kafal_pipeline.pipelines.report.pipeline import create_pipeline

__all__ = ["create_pipeline"]
