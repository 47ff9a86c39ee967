"""Queries: which unlabelled samples a client should have labelled."""

from kafal_pipeline.query.names import QUERIES

__all__ = ["QUERIES"]
