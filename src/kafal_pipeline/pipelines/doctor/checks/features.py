"""Checks that features of images can be computed, or have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.data import read_store
from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding
from kafal_pipeline.pipelines.doctor.shape import DataShape
from kafal_pipeline.runs.layout import Layout

CHECK = "features"


def look(config: Config, root: Path, images: DataShape | None) -> tuple[Finding, DataShape | None]:
    """Return what there is of the features, and the shape of what clients train on; None if it is not known yet.

    `images`: the shape of the images.
    """
    from kafal_pipeline.federation.data_checks import check_features  # imports PyTorch

    weights, folder = root / Path(str(config.features.weights)).expanduser(), Layout(root, config).features
    try:
        check_features(config)
        if not weights.is_file():
            raise UserError(f"features.weights: there is no file {weights.absolute()}.")
        if images is None or not folder.exists():
            advice = "To have them computed, and time and memory estimated here: kedro run --pipeline features."
            return Finding(CHECK, WARNING, "not computed yet; the run does so first", advice), None
        stored = read_store(folder, trusted=True)
    except UserError as error:
        return Finding(CHECK, FAILURE, str(error)), None
    width, dtype = stored.channels, str(np.dtype(stored.train_images.dtype))
    found = (
        f"{width} features an image by {config.features.network}, {dtype}; the run computes them again if they changed"
    )
    return Finding(CHECK, OK, found), replace(images, image=(1, 1, width), dtype=dtype)
