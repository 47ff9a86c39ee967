"""Trains the global model for one cycle: rounds of local training and aggregation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.between_rounds import cycle_state
from kafal_pipeline.federation.between_rounds.client_states import ClientState
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.between_rounds.lazy import RoundUpdates
from kafal_pipeline.federation.between_rounds.store import IN_MEMORY, Store
from kafal_pipeline.federation.failures import check_aggregated, problem_of, settle
from kafal_pipeline.federation.participants import participants
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.tasks import TrainResult, TrainTask
from kafal_pipeline.federation.workers.watching import begin_watching
from kafal_pipeline.models.state import Arrays, State, size_in_bytes, to_arrays, to_state
from kafal_pipeline.training.local import learning_rate
from kafal_pipeline.update.base import ClientUpdate, Update
from kafal_pipeline.update.checks import checked_aggregate
from kafal_pipeline.update.factory import make_update

Row = dict[str, int | float]
"""Of the table ``rounds``; `failed` says that the client was left out of the round."""

OnRound = Callable[[CycleState], None]
"""Called after every round."""


def train_cycle(
    config: Config,
    pools: Mapping[int, ClientPool],
    global_state: State,
    cycle: int,
    workers: Workers,
    on_round: OnRound | None = None,
    store: Store | None = None,
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
    store
        What the clients keep between rounds; by default of this call alone. One that is durable saves the rounds, and
        training resumes after the last round that it opened with.
    resumed
        Where an earlier call for the same cycle stood after a round: training resumes from there, in memory.

    Raises
    ------
    UserError
        If no client has a label, training goes wrong (`kafal_pipeline.federation.failures`), or the disk is full.
    """
    if not any(len(pool.labelled) for pool in pools.values()):
        raise UserError("budget.initial: no client has a labelled sample to train on; raise it.")
    update = make_update(config.update)
    store = Store() if store is None else store
    store.limit = memory_limit(config, global_state, len(pools))
    state = resumed or cycle_state.begin(store, pools, global_state, cycle)
    for client, watched in begin_watching(config, pools, cycle).items():
        if client not in state.watched:
            state.watched[client] = watched
    messages = cycle_state.states(store, "message")
    begin = time.perf_counter() - state.seconds
    try:
        while state.round < config.federation.rounds:
            _train_round(state, config, pools, update, workers, messages)
            state.seconds = time.perf_counter() - begin
            cycle_state.save(state, store)
            if on_round is not None:
                on_round(state)
    except BaseException:
        with contextlib.suppress(CannotWrite):  # what ended the training is what counts
            store.wait()
        raise
    store.wait()
    return state


def memory_limit(config: Config, model: State, clients: int) -> int:
    """Return how many bytes of the clients' states stay in memory: `IN_MEMORY`, or what a round's participants need.

    Each has a model, a momentum, and at most twice as much of what updates keep and send.
    """
    return max(IN_MEMORY, int(4 * size_in_bytes(model) * config.federation.participation * clients))


def _train_round(
    state: CycleState,
    config: Config,
    pools: Mapping[int, ClientPool],
    update: Update,
    workers: Workers,
    messages: MutableMapping[int, State],
) -> None:
    """Broadcast, train the participants, aggregate; `state` then stands after one more round.

    A client that failed keeps what it had before.
    """
    chosen = participants(list(pools), config.federation, seed=config.seed, cycle=state.cycle, round_=state.round)
    training = [client for client in chosen if len(pools[client].labelled)]
    broadcast = to_arrays(state.global_state)
    state.broadcasts[state.round] = to_state(broadcast)
    sent: dict[int, ClientUpdate] = {}
    rows: dict[int, Row] = {}
    failed: dict[int, str] = {}
    for _, result in workers.run("train", _tasks(training, pools, state, update, broadcast)):
        pool, problem = pools[result.client], problem_of(result)
        rows[result.client] = _row(state, result, config, len(pool.labelled), failed=problem is not None)
        if problem is not None:
            failed[result.client] = problem
            continue
        sent[result.client] = ClientUpdate({}, float(len(pool.labelled)), result.travel, result.parameters)
        _keep(state, result, config)
        if result.message:
            messages[result.client] = to_state(result.message)
    # Results come in any order; what is made of them goes by the clients' numbers.
    settle(failed, training, config, state.cycle, state.round)
    state.rows += [rows[client] for client in training]
    in_order = {client: sent[client] for client in training if client in sent}
    updates = RoundUpdates(in_order, state.local_states, messages)
    with blamed(f"cycle {state.cycle}, round {state.round}, all clients", update=update):
        aggregated = update.aggregate(state.global_state, state.server, updates, len(pools))
        model, server = checked_aggregate(aggregated, state.global_state)
    check_aggregated(model, server, config, state.cycle, state.round)
    state.global_state, state.server = model, server
    messages.clear()
    for round_ in set(state.broadcasts) - set(state.downloaded.values()):
        del state.broadcasts[round_]
    state.round += 1


def _tasks(
    training: list[int], pools: Mapping[int, ClientPool], state: CycleState, update: Update, broadcast: Arrays
) -> Iterator[TrainTask]:
    """Yield the participants' tasks, the largest first, so that none of them is left to the end alone."""
    server = to_arrays(state.server)
    for client in sorted(training, key=lambda client: -len(pools[client].labelled)):
        with blamed(f"client {client}, cycle {state.cycle}, round {state.round}", update=update):
            task = _task(client, pools[client], state, update, broadcast, server)
        yield task


def _task(
    client: int, pool: ClientPool, state: CycleState, update: Update, broadcast: Arrays, server: Arrays
) -> TrainTask:
    sources = {"none": pool.unlabelled[:0], "initial": pool.initial_unlabelled, "current": pool.unlabelled}
    mine, source = state.clients[client], update.unlabelled_source()
    if source not in sources:
        raise NotAllowed(f"`unlabelled_source` returned {source!r}; allowed: {', '.join(map(repr, sources))}.")
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
        sources[source],
        mine.steps,
        mine.kept,
        server,
        None if previous is None else to_arrays(previous),
        mine.batch_norm,
        state.watched.get(client),
    )


def _keep(state: CycleState, result: TrainResult, config: Config) -> None:
    """Note what a client keeps."""
    before = state.clients[result.client]
    state.local_states[result.client] = to_state(result.state)
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


def _row(state: CycleState, result: TrainResult, config: Config, labels: int, *, failed: bool) -> Row:
    """Return the row of the table ``rounds``; `state` is that before the client trained.

    A client that failed sees that itself, and sends nothing.
    """
    up = 0 if failed else size_in_bytes(to_state(result.state)) + size_in_bytes(to_state(result.message))
    return {
        "cycle": state.cycle,
        "round": state.round,
        "client": result.client,
        "labels": labels,
        "loss": result.loss,
        "lr": learning_rate(config.training, result.epochs),
        "epochs": result.epochs,
        "steps": result.steps,
        "bytes_down": _bytes_down(state, state.clients[result.client]),
        "bytes_up": up,
        "seconds": result.seconds,
        "failed": failed,
    }


def _bytes_down(state: CycleState, client: ClientState) -> int:
    """Return the bytes of the model and what goes with it, less the batch norms that the client has of its own."""
    own = sum(array.nbytes for array in client.batch_norm.values())
    return size_in_bytes(state.global_state) + size_in_bytes(state.server) - own
