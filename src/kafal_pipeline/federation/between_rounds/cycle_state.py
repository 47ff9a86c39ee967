"""State of a cycle between its rounds, and the part of a finished cycle that queries see."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from kafal_pipeline.federation.between_rounds.client_states import ClientState
from kafal_pipeline.models.state import Arrays, State


@dataclass
class CycleState:
    """Everything training in a cycle depends on after `round` rounds.

    What grows with the number of clients times the size of a model (`clients`, `local_states`, `broadcasts`) may lie on
    disk: a value is read when it is asked for, and changed by setting it anew.

    Attributes
    ----------
    cycle, round
        The cycle, and the number of its rounds that are finished.
    global_state
        The aggregated model.
    clients
        What each client keeps.
    server
        What the update keeps on the server and broadcasts beside the model.
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
    watched: dict[int, Arrays] = field(default_factory=dict)
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
