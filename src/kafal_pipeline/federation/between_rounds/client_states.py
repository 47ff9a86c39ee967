"""State that clients keep between the rounds of a cycle, with views of it in a store of arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field

import numpy as np

from kafal_pipeline.models.state import Arrays, State, to_state

Store = MutableMapping[Hashable, Arrays]


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
    """Return all that a client keeps as one dictionary of arrays, which share the state's memory."""
    record: Arrays = {"epochs": np.array(state.epochs), "steps": np.array(state.steps)}
    groups = {"kept": state.kept, "batch_norm": state.batch_norm}
    if state.momentum is not None:
        record["has_momentum"] = np.array(True)  # none yet is not the same as one without entries
        groups["momentum"] = state.momentum
    return record | {f"{group}/{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def from_record(record: Arrays) -> ClientState:
    """Return what `to_record` was given."""
    groups: dict[str, Arrays] = {"momentum": {}, "kept": {}, "batch_norm": {}}
    for key, array in record.items():
        group, separator, name = key.partition("/")
        if separator:
            groups[group][name] = array
    return ClientState(
        groups["momentum"] if "has_momentum" in record else None,
        int(record["epochs"]),
        int(record["steps"]),
        groups["kept"],
        groups["batch_norm"],
    )


class ClientStates(MutableMapping[int, ClientState]):
    """What each client keeps, in a store that may lie on disk: one record a client.

    Parameters
    ----------
    clients
        All clients; those without a record have the state of one that never trained.
    store
        Where records lie, with the keys ``("client", number)``.
    """

    def __init__(self, clients: Iterable[int], store: Store) -> None:
        self._clients, self._store = dict.fromkeys(clients), store

    def __getitem__(self, client: int) -> ClientState:
        """Return what a client keeps; to change it, set it anew."""
        if client not in self._clients:
            raise KeyError(client)
        record = self._store.get(("client", client))
        return ClientState() if record is None else from_record(record)

    def __setitem__(self, client: int, state: ClientState) -> None:
        """Replace what a client keeps."""
        self._clients[client] = None
        self._store["client", client] = to_record(state)

    def __delitem__(self, client: int) -> None:
        """Forget a client."""
        del self._clients[client]
        self._store.pop(("client", client), None)

    def __iter__(self) -> Iterator[int]:
        """Return the clients."""
        return iter(self._clients)

    def __len__(self) -> int:
        """Return their number."""
        return len(self._clients)


class StoredStates(MutableMapping[int, State]):
    """Model states by number, in a store that may lie on disk.

    Parameters
    ----------
    kind
        What they are; their keys in the store are ``(kind, number)``.
    store
        Where they lie.
    """

    def __init__(self, kind: str, store: Store) -> None:
        self._kind, self._store = kind, store
        self._numbers: dict[int, None] = {}

    def __getitem__(self, number: int) -> State:
        """Return a state; its tensors must not be changed."""
        if number not in self._numbers:
            raise KeyError(number)
        return to_state(self._store[self._kind, number])

    def __setitem__(self, number: int, state: State) -> None:
        """Keep a state on the CPU, without a copy."""
        self._store[self._kind, number] = {name: tensor.numpy() for name, tensor in state.items()}
        self._numbers[number] = None

    def __delitem__(self, number: int) -> None:
        """Forget a state."""
        del self._numbers[number]
        del self._store[self._kind, number]

    def __iter__(self) -> Iterator[int]:
        """Return the numbers."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers)
