"""Nodes of the data pipeline."""

from __future__ import annotations

import logging
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.data import ImageData, open_store
from kafal_pipeline.data.sources.checks import check_annotation, one_sided
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.runs.layout import RAW, Layout

logger = logging.getLogger(__name__)


def load_images(parameters: Parameters, root: Path = Path()) -> ImageData:
    """Return the configured data set, stored in ``data/02_intermediate/<data set>/images``.

    Raises `UserError` if it cannot be read, ``annotation.source`` does not suit its labels, or it is features and the
    configuration does not suit these.

    Relative paths start from `root`, the project's folder: Kedro can be run from any folder inside it.
    """
    config = resolve(parameters)
    images = open_store(config.dataset, root / RAW, Layout(root, config).images, root)
    check_annotation(config.annotation.source, config.dataset.name, images.train_labels, images.test_labels)
    if images.are_features:
        _check_given(config)
    if remark := one_sided(images.classes, images.train_labels, images.test_labels):
        logger.warning("%s: %s", config.dataset.name, remark)
    return images


def _check_given(config: Config) -> None:
    """Raise `UserError` if features in the place of images cannot be used as configured."""
    from kafal_pipeline.federation.data_checks import check_features  # imports PyTorch

    if config.annotation.source == "people":
        raise UserError(
            f"annotation.source: found 'people', but {config.dataset.name} is features, which cannot be shown. Give "
            "the images, and have their features computed (features.network, docs/features.md)."
        )
    if config.features.network is not None:
        raise UserError(
            f"features.network: found {config.features.network!r}, but {config.dataset.name} is features already. "
            "Leave features.network and features.weights out."
        )
    check_features(config)
