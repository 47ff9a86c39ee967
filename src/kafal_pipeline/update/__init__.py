"""Federated updates: what a client minimises, and how the server joins the clients' models."""

from kafal_pipeline.update.names import UPDATES

__all__ = ["UPDATES"]
