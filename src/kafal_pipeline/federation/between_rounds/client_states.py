"""State that a client keeps between the rounds of a cycle, and views of what a store has of one kind."""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, fields
from operator import index
from typing import Any, SupportsIndex, TypeVar

import numpy as np

from kafal_pipeline.federation.between_rounds.store import key_of
from kafal_pipeline.models.state import Arrays

V = TypeVar("V")


@dataclass
class ClientState:
    """What a client keeps between the rounds of one cycle, and loses at the next cycle's start.

    `steps` are those behind its momentum, `kept` is the update's, `batch_norm` its own where batch norms stay local.
    """

    momentum: Arrays | None = None
    epochs: int = 0
    steps: int = 0
    kept: Arrays = field(default_factory=dict)
    batch_norm: Arrays = field(default_factory=dict)


def to_record(state: ClientState) -> Arrays:
    """Return a dataclass of numbers and dictionaries of arrays as one such dictionary, which shares their memory."""
    record: Arrays = {}
    for name in (entry.name for entry in fields(state)):
        value: Any = getattr(state, name)
        if isinstance(value, dict):
            record[f"{name}/"] = np.array(True)  # None is not the same as a dictionary without entries
            record |= {f"{name}/{key}": array for key, array in value.items()}
        elif value is not None:
            record[name] = np.array(value)
    return record


def from_record(record: Arrays) -> ClientState:
    """Return what `to_record` was given."""
    values: dict[str, Any] = {}
    for key, array in record.items():
        name, in_dictionary, entry = key.partition("/")
        if in_dictionary:
            values.setdefault(name, {}).update({entry: array} if entry else {})
        else:
            values[name] = array.item()
    return ClientState(**values)


class Kind(MutableMapping[int, V]):
    """The values of one kind in a store, by client or round; to change one, set it again.

    `pack` and `unpack` turn a value into the arrays that are stored under ``key_of(kind, number)``, and back.
    """

    def __init__(
        self, store: MutableMapping[str, Arrays], kind: str, pack: Callable[[V], Arrays], unpack: Callable[[Arrays], V]
    ) -> None:
        self._store, self._kind, self._pack, self._unpack = store, kind, pack, unpack

    def __getitem__(self, number: int) -> V:
        return self._unpack(self._store[key_of(self._kind, number)])

    def __setitem__(self, number: int, value: V) -> None:
        self._store[key_of(self._kind, number)] = self._pack(value)

    def __delitem__(self, number: int) -> None:
        del self._store[key_of(self._kind, number)]

    def __iter__(self) -> Iterator[int]:
        names = (key.rpartition("_") for key in list(self._store))
        return (int(number) for kind, _, number in names if kind == self._kind)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, SupportsIndex) and key_of(self._kind, index(number)) in self._store
