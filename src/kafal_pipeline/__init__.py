"""Federated active learning as a Kedro project: query, annotate, train together, compare."""

__version__ = "0.1.0"
