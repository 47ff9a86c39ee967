"""The report of one run, or of a trial on a GPU: its learning curve, its summary and its figures."""

from kafal_pipeline.pipelines.report.pipeline import create_pipeline, create_trial_pipeline

__all__ = ["create_pipeline", "create_trial_pipeline"]
