"""Nodes of the data pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, open_store

RAW = Path("data/01_raw")
INTERMEDIATE = Path("data/02_intermediate")


def load_images(parameters: dict[str, Any], raw: Path = RAW, intermediate: Path = INTERMEDIATE) -> ImageData:
    """Return the configured data set, stored in ``<intermediate>/<data set>/images``.

    Relative folders start from the working directory, which Kedro sets to the project's.
    """
    config = resolve(parameters)
    return open_store(config.dataset, raw, intermediate / config.dataset.folder / "images")
