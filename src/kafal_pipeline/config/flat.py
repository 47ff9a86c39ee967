"""Flattens a nested configuration to keys with dots."""

from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one; an empty mapping is a value.

    >>> flat({"training": {"lr": 0.1, "options": {}}, "seed": 1})
    {'training.lr': 0.1, 'training.options': {}, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found
