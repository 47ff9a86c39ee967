"""Packets as Flower's records, and back."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.sites.packets import Packet

VALUES = "values"
TRAIN, EVALUATE, QUERY = "train", "evaluate", "query"  # Flower allows these categories alone


def type_of(kind: str) -> str:
    """Return Flower's type of a message.

    >>> type_of("train"), type_of("select")
    ('train', 'query.select')
    """
    return kind if kind in (TRAIN, EVALUATE) else f"{QUERY}.{kind}"


def kind_of(type_: str) -> str:
    """Return the kind of a message of Flower's."""
    category, _, action = type_.partition(".")
    return action if category == QUERY else type_


def to_records(packet: Packet) -> RecordDict:
    """Return a packet as records: one of its values, and one of each group of arrays."""
    records = RecordDict({VALUES: ConfigRecord(dict(packet.values))})
    for name, arrays in packet.arrays.items():
        records[name] = ArrayRecord({key: Array(array) for key, array in arrays.items()})
    return records


def to_packet(records: RecordDict) -> Packet:
    """Return what `to_records` was given; raises NotAllowed if these are other records, or arrays that are none."""
    values = records.get(VALUES)
    if not isinstance(values, ConfigRecord):
        raise NotAllowed("the message has no values.")
    groups: dict[str, Arrays] = {}
    for name, record in records.items():
        if name == VALUES:
            continue
        if not isinstance(record, ArrayRecord):
            raise NotAllowed(f"the message has {type(record).__name__} as {name!r}; allowed: arrays.")
        groups[name] = {key: _array(f"{name} {key}", array) for key, array in record.items()}
    return Packet(dict(values), groups)


def _array(what: str, array: Array) -> NDArray[np.generic]:
    try:
        found = array.numpy()  # which unpickles nothing
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise NotAllowed(f"{what} is no array ({str(error)[:100]}).") from None
    if found.dtype.kind not in "biuf":
        raise NotAllowed(f"{what} is an array of {found.dtype}; allowed: numbers and truth values.")
    return found
