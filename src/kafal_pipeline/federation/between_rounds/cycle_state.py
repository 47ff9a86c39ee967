"""State of a cycle between its rounds, kept in a store: the server's, and that of a simulation's sites."""

import logging
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from kafal_pipeline.federation.between_rounds.client_states import ClientState, Kind, from_record, to_record
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.models.state import Arrays, State, to_state

logger = logging.getLogger(__name__)

CLIENT, BROADCAST, WATCHED = "client", "broadcast", "watched"  # kinds of what queries need once a cycle is trained
Row = dict[str, int | float]  # of the table ``rounds``; `failed` says that the client was left out of the round


@dataclass
class CycleState:
    """What the server has after `round` rounds of a cycle."""

    cycle: int
    round: int
    global_state: State
    server: State = field(default_factory=dict)  # what the update keeps there and broadcasts next to the model
    rows: list[Row] = field(default_factory=list)  # one for each round and client that trained
    seconds: float = 0.0  # that training took so far


def begin(store: Store, clients: Iterable[int], global_state: State, cycle: int) -> tuple[CycleState, Sites]:
    """Return a cycle that begins with a model, or resumes after the last saved round; its sites lie in `store`."""
    state = CycleState(cycle, 0, global_state)
    sites = Sites(
        ChainMap(Kind(store, "kept", to_record, from_record), {client: ClientState() for client in clients}),
        local_states=states(store, CLIENT),
        broadcasts=states(store, BROADCAST),
        watched=Kind(store, WATCHED, dict, dict),
    )
    saved = store.resumed
    if saved is not None:
        state.round, state.seconds, sites.downloaded = saved["round"], saved["seconds"], dict(saved["downloaded"])
        state.global_state, state.server = to_state(store["global"]), to_state(store["server"])
        rows = store["rows"]
        columns = {name: rows[name].tolist() for name in saved["columns"]}
        state.rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        logger.info("cycle %d: training resumes after round %d", cycle, state.round)
    return state, sites


def save(state: CycleState, sites: Sites, store: Store) -> None:
    """Begin to make durable what `begin` returned, if it is time for that; it may train on at once."""
    if not store.due:
        return
    columns = list(state.rows[0]) if state.rows else []  # a file's arrays have no order
    store["global"], store["server"] = _arrays(state.global_state), _arrays(state.server)
    store["rows"] = {name: np.array([row[name] for row in state.rows]) for name in columns}
    downloaded = list(sites.downloaded.items())
    store.commit(
        state.round, {"round": state.round, "seconds": state.seconds, "downloaded": downloaded, "columns": columns}
    )


def states(store: MutableMapping[str, Arrays], kind: str) -> Kind[State]:
    """Return the model states of one kind in a store, on the CPU; their tensors must not be changed."""
    return Kind(store, kind, _arrays, to_state)


def _arrays(state: Mapping[str, Tensor]) -> Arrays:
    """Return a state's arrays, which share its memory."""
    return {name: tensor.numpy() for name, tensor in state.items()}
