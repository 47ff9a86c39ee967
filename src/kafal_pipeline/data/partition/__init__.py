"""Divides the training set among clients."""

from kafal_pipeline.data.partition.make import METHODS, make_partition
from kafal_pipeline.data.partition.split import check_split, format_split, read_split, split_table

__all__ = ["METHODS", "check_split", "format_split", "make_partition", "read_split", "split_table"]
