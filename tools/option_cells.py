"""Formats options as cells of the documentation's generated tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def options_of(strategy: Any) -> str:
    """Return the options of a query or an update, a dataclass, with the values that this one has."""
    return listed({item.name: getattr(strategy, item.name) for item in fields(strategy)})


def listed(options: Mapping[str, Any]) -> str:
    """Return options and their values as a cell; what has a name stands by it.

    Examples
    --------
    >>> listed({"mu": 0.01, "quota": "none", "loss": None})
    '`mu` 0.01, `quota` none, `loss` null'
    """
    return ", ".join(f"`{key}` {_written(value)}" for key, value in options.items()) or "-"


def _written(value: Any) -> str:
    value = getattr(value, "name", value)
    return value if isinstance(value, str) else json.dumps(value)
