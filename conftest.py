"""Leaves out what cannot be imported here: Flower is an extra."""

from importlib.util import find_spec

FLOWERS = [
    "src/kafal_pipeline/sites/over_flower/*",
    "src/kafal_pipeline/pipelines/sites/server_app.py",
    "tests/support/flower_grid.py",
]
collect_ignore_glob = [] if find_spec("flwr") else FLOWERS
