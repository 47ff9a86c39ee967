"""A site's own images, as its configuration and the server's want them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import ImageData, open_store
from kafal_pipeline.data.image_batches import Levels, batches
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.sites.at_site.site_file import SiteFile

SIZING = ("image_size", "resize", "mean", "std", "classes")
"""Keys of the server's section `dataset` that hold at every site."""


def open_images(site: SiteFile, dataset: DatasetConfig) -> ImageData:
    """Return the site's images from its store, which is made where it is not there or out of date.

    Raises `UserError` if they cannot be read, lack a test set, or lack labels that nobody is to give.
    """
    folder = Path(site.images)
    sizing = {key: getattr(dataset, key) for key in SIZING}
    if site.classes is not None and dataset.classes not in (None, site.classes):
        raise UserError(f"classes: found {site.classes}, but the server's dataset.classes are {dataset.classes}.")
    own = DatasetConfig(
        name="site",
        path=str(folder),
        **{**sizing, "classes": site.classes or dataset.classes},
        test_share=site.test_share,
    )
    images = open_store(own, folder, Path(site.work) / "images", folder)
    if images.unlabelled and site.annotation.source == "oracle":
        raise UserError(
            f"{folder}: {images.unlabelled} images have no label. Have people give them (annotation.source: people in "
            "site.yml), or put the images into train/<class>/ and test/<class>/."
        )
    return images


def levels_of(images: ImageData) -> Arrays:
    """Return how often each level occurs in the training images, int64 ``(channels, 256)``, named ``counts``."""
    levels = Levels(images.channels)
    for batch in batches(images.train_images):
        levels.add(batch)
    return {"counts": levels.counts}


def normalised_by(images: ImageData, mean: list[float], std: list[float]) -> ImageData:
    """Return the images with the federation's mean and standard deviation in the place of their own."""
    return replace(images, mean=np.array(mean, dtype=np.float64), std=np.array(std, dtype=np.float64))
