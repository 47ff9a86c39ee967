"""Processes that train clients and answer queries next to each other."""
