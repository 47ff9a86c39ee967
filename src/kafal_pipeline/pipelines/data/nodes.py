"""Nodes of the data pipeline."""

from __future__ import annotations

from pathlib import Path

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, open_store
from kafal_pipeline.pipelines.annotations import Parameters

RAW = Path("data/01_raw")
INTERMEDIATE = Path("data/02_intermediate")


def load_images(parameters: Parameters, root: Path = Path()) -> ImageData:
    """Return the configured data set, stored in ``data/02_intermediate/<data set>/images``.

    Relative paths start from `root`, the project's folder: Kedro can be run from any folder inside it.
    """
    config = resolve(parameters)
    return open_store(config.dataset, root / RAW, root / INTERMEDIATE / config.dataset.folder / "images", root)
