"""Fixtures of the tests of queries and updates, for their documents' tables and tutorials."""

from ..query.conftest import informed, make_pool, make_query
from ..update.conftest import images, make_pools, one_thread, train

__all__ = ["images", "informed", "make_pool", "make_pools", "make_query", "one_thread", "train"]
