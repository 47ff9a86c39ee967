"""Is everything there that the configured run needs, and how long will it take? Seconds, before hours are spent."""

from kafal_pipeline.pipelines.doctor.pipeline import create_pipeline

__all__ = ["create_pipeline"]
