"""Federated updates: the loss that a client minimises, and how the server aggregates the clients' models."""

from kafal_pipeline.update.names import UPDATES

__all__ = ["UPDATES"]
