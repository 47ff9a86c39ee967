"""Packets as Flower's records, and back."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.sites.packets import Packet

VALUES, PACKED = "values", "safetensors"
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
    """Return a packet as records: one of its values, and one array of bytes for each group of arrays.

    Flower fetches each array of a message by a request of its own; a model has a hundred.
    """
    records = RecordDict({VALUES: ConfigRecord(dict(packet.values))})
    for group, arrays in packet.arrays.items():
        # Numbered, since the format sorts names; it writes memory as it lies.
        plain = {f"{number:05d} {name}": np.asarray(arrays[name], order="C") for number, name in enumerate(arrays)}
        records[group] = ArrayRecord({PACKED: Array(np.frombuffer(save(plain), dtype=np.uint8))})
    return records


def to_packet(records: RecordDict, limit: int) -> Packet:
    """Return what `to_records` was given.

    Raises NotAllowed if these are other records, bytes that are no arrays, or more bytes than `limit`.
    """
    size = sum(map(_bytes, records.values()))
    if size > limit:
        raise NotAllowed(f"the message has {size:,} bytes, more than the {limit:,} that are taken.")
    values = records.get(VALUES)
    if not isinstance(values, ConfigRecord):
        raise NotAllowed("the message has no values.")
    groups: dict[str, Arrays] = {}
    for group, record in records.items():
        if group != VALUES:
            groups[group] = _unpacked(group, record)
    return Packet(dict(values), groups)


def _bytes(record: object) -> int:
    if isinstance(record, ArrayRecord):
        return sum(len(array.data) for array in record.values())
    return sum(len(str(value)) for value in record.values()) if isinstance(record, ConfigRecord) else 0


def _unpacked(group: str, record: object) -> Arrays:
    if not isinstance(record, ArrayRecord) or list(record) != [PACKED]:
        raise NotAllowed(f"the message has something else than arrays as {group!r}.")
    try:
        content = record[PACKED].numpy()  # which unpickles nothing
        arrays = load(content.tobytes()) if content.dtype == np.uint8 and content.ndim == 1 else {}
    except (ValueError, TypeError, EOFError, OSError, KeyError, SafetensorError) as error:
        raise NotAllowed(f"{group}: these bytes are no arrays ({str(error)[:100]}).") from None
    return {name.partition(" ")[2]: arrays[name] for name in sorted(arrays)}
