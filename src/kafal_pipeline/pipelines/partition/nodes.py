"""Nodes of the partition pipeline."""

from __future__ import annotations

from pathlib import Path

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, make_partition, split_table
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters


def split_clients(images: ImageData, parameters: Parameters, root: Path = Path()) -> tuple[list[list[int]], DataFrame]:
    """Return the training indices of each client, and how many samples of each class each one holds."""
    config = resolve(parameters)
    split = make_partition(images.train_labels, config.partition, config.seed, images.train_clients, root)
    return [items.tolist() for items in split], split_table(split, images.train_labels, images.num_classes)
