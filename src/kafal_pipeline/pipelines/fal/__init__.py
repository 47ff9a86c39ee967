"""The trial: per cycle query -> annotate -> federated training -> evaluate."""

from kafal_pipeline.pipelines.fal.pipeline import create_pipeline

__all__ = ["create_pipeline"]
