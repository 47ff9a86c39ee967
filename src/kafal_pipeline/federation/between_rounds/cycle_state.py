"""State of a cycle between its rounds, and the part of a finished cycle that queries see."""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from kafal_pipeline.federation.between_rounds.client_states import ClientState, Kind, from_record, to_record
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.models.state import Arrays, State, to_state

logger = logging.getLogger(__name__)

CLIENT, BROADCAST, WATCHED = "client", "broadcast", "watched"
"""Kinds of values in a store that queries need once the cycle is trained: `local_states`, `broadcasts`, `watched`."""


@dataclass
class CycleState:
    """Everything training in a cycle depends on after `round` rounds.

    What grows with the number of clients times the size of a model (`clients`, `local_states`, `broadcasts`) may lie on
    disk: a value is read when it is asked for, and changed by setting it again.

    Attributes
    ----------
    cycle, round
        The cycle, and the number of its rounds that are finished.
    global_state
        The aggregated model.
    clients
        What each client keeps.
    server
        What the update keeps on the server and broadcasts next to the model.
    local_states
        Each client's model after its last training, by client.
    downloaded
        The round whose broadcast each client last downloaded, by client.
    broadcasts
        Those broadcasts, by round.
    watched
        What queries have watched of each client's training (`kafal_pipeline.federation.workers.watching`), by client.
    rows
        One for each round and client that trained, for the table ``rounds``.
    seconds
        Time that training took so far.
    """

    cycle: int
    round: int
    global_state: State
    clients: MutableMapping[int, ClientState] = field(default_factory=dict)
    server: State = field(default_factory=dict)
    local_states: MutableMapping[int, State] = field(default_factory=dict)
    downloaded: dict[int, int] = field(default_factory=dict)
    broadcasts: MutableMapping[int, State] = field(default_factory=dict)
    watched: MutableMapping[int, Arrays] = field(default_factory=dict)
    rows: list[dict[str, int | float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainedCycle:
    """What queries are given of a finished cycle: attributes of its `CycleState`, whose values may be read lazily."""

    cycle: int
    global_state: State
    local_states: Mapping[int, State]
    downloaded: Mapping[int, int]
    broadcasts: Mapping[int, State]
    watched: Mapping[int, Arrays]


def begin(store: Store, clients: Iterable[int], global_state: State, cycle: int) -> CycleState:
    """Return the state, in `store`, of a cycle that begins with a model, or that resumes after the last saved round."""
    state = CycleState(
        cycle,
        0,
        global_state,
        ChainMap(Kind(store, "kept", to_record, from_record), {client: ClientState() for client in clients}),
        local_states=states(store, CLIENT),
        broadcasts=states(store, BROADCAST),
        watched=Kind(store, WATCHED, dict, dict),
    )
    saved = store.resumed
    if saved is not None:
        state.round, state.seconds, state.downloaded = saved["round"], saved["seconds"], dict(saved["downloaded"])
        state.global_state, state.server = to_state(store["global"]), to_state(store["server"])
        rows = store["rows"]
        columns = {name: rows[name].tolist() for name in saved["columns"]}
        state.rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        logger.info("cycle %d: training resumes after round %d", cycle, state.round)
    return state


def save(state: CycleState, store: Store) -> None:
    """Begin to make a state durable that `begin` returned, if it is time for that; it may train on at once."""
    if not store.due:
        return
    columns = list(state.rows[0]) if state.rows else []  # a file's arrays have no order
    store["global"], store["server"] = _arrays(state.global_state), _arrays(state.server)
    store["rows"] = {name: np.array([row[name] for row in state.rows]) for name in columns}
    downloaded = list(state.downloaded.items())
    store.commit(
        state.round,
        {"round": state.round, "seconds": state.seconds, "downloaded": downloaded, "columns": columns},
    )


def states(store: MutableMapping[str, Arrays], kind: str) -> Kind[State]:
    """Return the model states of one kind in a store, on the CPU; their tensors must not be changed."""
    return Kind(store, kind, _arrays, to_state)


def _arrays(state: Mapping[str, Tensor]) -> Arrays:
    """Return a state's arrays, which share its memory."""
    return {name: tensor.numpy() for name, tensor in state.items()}
