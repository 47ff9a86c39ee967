"""Kedro pipelines: each has nodes that translate between tables and the packages below, and one list of them."""
