"""Kedro datasets of this project: files that are whole or absent, model states, mapped images."""

from typing import Any

_MODULES = {
    "Atomic": "kafal_pipeline.catalog.atomic",
    "ImageStore": "kafal_pipeline.catalog.images",
    "ManyStates": "kafal_pipeline.catalog.many_states",
    "Splits": "kafal_pipeline.catalog.splits",
    "State": "kafal_pipeline.catalog.states",
    "States": "kafal_pipeline.catalog.states",
}

__all__ = ["Atomic", "ImageStore", "ManyStates", "Splits", "State", "States"]


def __getattr__(name: str) -> Any:
    """Import a dataset's module on first use: a listing of the catalog needs none of them."""
    if name in _MODULES:
        import importlib  # not needed before

        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
