"""Leaves out what cannot be imported here: Flower is an extra."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("flwr") else ["src/kafal_pipeline/sites/over_flower/*"]
