"""Networks that clients train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafal_pipeline.models.names import MODELS

if TYPE_CHECKING:
    from kafal_pipeline.models.factory import ImageClassifier, build

__all__ = ["MODELS", "ImageClassifier", "build"]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use."""
    if name in {"ImageClassifier", "build"}:
        from kafal_pipeline.models import factory

        return getattr(factory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
