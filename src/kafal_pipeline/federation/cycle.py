"""Federated training of one cycle: rounds of local training and aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.errors import UserError
from kafal_pipeline.federation.participants import participants
from kafal_pipeline.federation.states import Arrays, State, size_in_bytes, to_arrays, to_state
from kafal_pipeline.federation.tasks import TrainResult, TrainTask
from kafal_pipeline.federation.watching import begin_watching
from kafal_pipeline.federation.workers import Workers
from kafal_pipeline.training.local import learning_rate
from kafal_pipeline.update.base import ClientUpdate, Update
from kafal_pipeline.update.factory import make_update

if TYPE_CHECKING:
    from kafal_pipeline.config import Config


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


@dataclass
class CycleState:
    """Everything training in a cycle depends on after `round` rounds.

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
        What queries have watched of each client's training (`kafal_pipeline.federation.watching`), by client.
    rows
        One for each round and client that trained, for the table ``rounds``.
    """

    cycle: int
    round: int
    global_state: State
    clients: dict[int, ClientState] = field(default_factory=dict)
    server: State = field(default_factory=dict)
    local_states: dict[int, State] = field(default_factory=dict)
    downloaded: dict[int, int] = field(default_factory=dict)
    broadcasts: dict[int, State] = field(default_factory=dict)
    watched: dict[int, Arrays] = field(default_factory=dict)
    rows: list[dict[str, int | float]] = field(default_factory=list)


OnRound = Callable[[CycleState], None]
"""Called after every round."""


def train_cycle(
    config: Config,
    pools: Mapping[int, ClientPool],
    global_state: State,
    cycle: int,
    workers: Workers,
    on_round: OnRound | None = None,
    resumed: CycleState | None = None,
) -> CycleState:
    """Train the global model for one cycle.

    Parameters
    ----------
    config
        The run's configuration.
    pools
        Each client's labelled and unlabelled samples.
    global_state
        The model the first round broadcasts.
    cycle
        Number of the cycle, from 0.
    workers
        Where clients train.
    on_round
        Called after every round.
    resumed
        Where an earlier call for the same cycle stood after a round: training goes on from there.

    Raises
    ------
    UserError
        If no client has a label, or a client's loss or model is not finite.
    """
    if not any(len(pool.labelled) for pool in pools.values()):
        raise UserError("budget.initial: no client has a labelled sample to train on; raise it.")
    update = make_update(config.update)
    state = resumed or CycleState(
        cycle,
        0,
        global_state,
        {client: ClientState() for client in pools},
        watched=begin_watching(config, pools, cycle),
    )
    while state.round < config.federation.rounds:
        _train_round(state, config, pools, update, workers)
        if on_round is not None:
            on_round(state)
    return state


def _train_round(
    state: CycleState, config: Config, pools: Mapping[int, ClientPool], update: Update, workers: Workers
) -> None:
    """Broadcast, train the participants, aggregate; `state` then stands after one more round."""
    chosen = participants(list(pools), config.federation, seed=config.seed, cycle=state.cycle, round_=state.round)
    training = [client for client in chosen if len(pools[client].labelled)]
    broadcast, server = to_arrays(state.global_state), to_arrays(state.server)
    tasks = [_task(client, pools[client], state, update, broadcast, server) for client in training]
    # The largest clients first, so that none of them is left to the end alone; results are put back in order.
    order = sorted(range(len(tasks)), key=lambda index: -len(tasks[index].labelled))
    results: dict[int, TrainResult] = {}
    for position, result in workers.run("train", [tasks[index] for index in order]):
        results[training[order[position]]] = result
    ordered = [results[client] for client in training]
    state.broadcasts[state.round] = to_state(broadcast)
    updates = [_keep(state, result, config, pools[result.client]) for result in ordered]
    state.global_state, state.server = update.aggregate(state.global_state, state.server, updates, len(pools))
    used = set(state.downloaded.values())
    state.broadcasts = {round_: sent for round_, sent in state.broadcasts.items() if round_ in used}
    state.round += 1


def _task(
    client: int, pool: ClientPool, state: CycleState, update: Update, broadcast: Arrays, server: Arrays
) -> TrainTask:
    sources = {"none": pool.unlabelled[:0], "initial": pool.initial_unlabelled, "current": pool.unlabelled}
    mine = state.clients[client]
    previous = state.local_states.get(client) if update.uses_previous() else None
    return TrainTask(
        client,
        state.cycle,
        state.round,
        broadcast,
        mine.momentum,
        mine.epochs,
        pool.labelled,
        pool.labels,
        sources[update.unlabelled_source()],
        mine.steps,
        mine.kept,
        server,
        None if previous is None else to_arrays(previous),
        mine.batch_norm,
        state.watched.get(client),
    )


def _keep(state: CycleState, result: TrainResult, config: Config, pool: ClientPool) -> ClientUpdate:
    """Note what a client did and keeps; return what it sends."""
    trained, message = to_state(result.state), to_state(result.message)
    tensors = [*trained.values(), *message.values()]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point()):
        raise UserError(
            f"cycle {state.cycle}, round {state.round}, client {result.client}: the model is no longer finite "
            f"(mean loss {result.loss:.4g}). Lower training.lr (found {config.training.lr})."
        )
    before = state.clients[result.client]
    state.local_states[result.client] = trained
    state.downloaded[result.client] = state.round
    if result.watched is not None:
        state.watched[result.client] = result.watched
    kept = config.federation.client_momentum == "kept"
    state.clients[result.client] = ClientState(
        result.momentum if kept else None,
        result.epochs,
        before.steps + result.steps if kept else 0,
        result.kept,
        result.batch_norm,
    )
    state.rows.append(
        {
            "cycle": state.cycle,
            "round": state.round,
            "client": result.client,
            "labels": len(pool.labelled),
            "loss": result.loss,
            "lr": learning_rate(config.training, result.epochs),
            "epochs": result.epochs,
            "steps": result.steps,
            "bytes_down": _bytes_down(state, before),
            "bytes_up": size_in_bytes(trained) + size_in_bytes(message),
            "seconds": result.seconds,
        }
    )
    return ClientUpdate(trained, float(len(pool.labelled)), result.travel, result.parameters, message)


def _bytes_down(state: CycleState, client: ClientState) -> int:
    """Return the bytes of the model and what goes with it, less the batch norms that the client has of its own."""
    own = sum(array.nbytes for array in client.batch_norm.values())
    return size_in_bytes(state.global_state) + size_in_bytes(state.server) - own
