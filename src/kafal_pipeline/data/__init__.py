"""Images, splits and pools: what the clients hold, and what of it is labelled."""

from kafal_pipeline.data.images import ImageData

__all__ = ["ImageData"]
