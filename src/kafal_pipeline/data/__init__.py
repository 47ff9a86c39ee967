"""Images, splits and pools: what the clients hold, and what of it is labelled."""

from kafal_pipeline.data.images import ImageData
from kafal_pipeline.data.partition import check_split, format_split, make_partition, read_split, split_table
from kafal_pipeline.data.partition.origin import check_origin, split_origin
from kafal_pipeline.data.pools import (
    annotate,
    check_pool,
    client_pools,
    cycle_budget,
    initial_pool,
)
from kafal_pipeline.data.store.read import open_store, read_store

__all__ = [
    "ImageData",
    "annotate",
    "check_origin",
    "check_split",
    "check_pool",
    "client_pools",
    "cycle_budget",
    "format_split",
    "initial_pool",
    "make_partition",
    "open_store",
    "read_split",
    "read_store",
    "split_origin",
    "split_table",
]
