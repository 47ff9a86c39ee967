"""Networks that clients train."""

from kafal_pipeline.models.names import MODELS

__all__ = ["MODELS"]
