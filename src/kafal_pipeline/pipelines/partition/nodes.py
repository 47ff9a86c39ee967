"""Nodes of the partition pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, make_partition, split_table

if TYPE_CHECKING:
    import pandas as pd


def split_clients(images: ImageData, parameters: dict[str, Any]) -> tuple[list[list[int]], pd.DataFrame]:
    """Return the training indices of each client, and how many samples of each class each one holds."""
    config = resolve(parameters)
    split = make_partition(images.train_labels, config.partition, config.seed, images.train_clients)
    return [items.tolist() for items in split], split_table(split, images.train_labels, images.num_classes)
