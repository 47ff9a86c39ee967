"""Nodes of the partition pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, make_partition, split_origin, split_table
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters


def split_clients(
    images: ImageData, parameters: Parameters, root: Path = Path()
) -> tuple[list[list[int]], DataFrame, dict[str, Any]]:
    """Return each client's training indices, how many samples of each class it holds, and what decided that."""
    config = resolve(parameters)
    split = make_partition(images.train_labels, config.partition, config.seed, images.train_clients, root)
    table = split_table(split, images.train_labels, images.num_classes)
    if (names := images.clients_of(config.partition.method)) is not None:
        table.insert(1, "client_name", [names[client] for client in table["client"]])
    return [items.tolist() for items in split], table, split_origin(config, images)
