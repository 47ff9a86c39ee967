"""Runs the query of one cycle: every client chooses among its own unlabelled samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool, cycle_budget
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState, TrainedCycle
from kafal_pipeline.federation.between_rounds.store import Store, key_of
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_worker import QueryResult, QueryTask, SummaryResult
from kafal_pipeline.models.state import Arrays, size_in_bytes, to_arrays
from kafal_pipeline.query.base import Selection, summarises
from kafal_pipeline.query.factory import make_query
from kafal_pipeline.query.pool import QueryModel

logger = logging.getLogger(__name__)

OnWait = Callable[[list[int]], None]

NAMED = 10
"""Clients that a line of the log names; of more it gives the number."""


@dataclass(frozen=True)
class QueryResults:
    """What the clients chose, and what a real federation would have sent for it.

    `bytes_down` counts the aggregated models that queries asked for (a client has its own model and the one it last
    downloaded already) and the summaries of all clients, to every client; `bytes_up` each client's summary.
    """

    selections: dict[int, Selection]
    bytes_down: int
    bytes_up: int = 0


def query_cycle(
    config: Config,
    pools: Mapping[int, ClientPool],
    trained: CycleState | TrainedCycle,
    cycle: int,
    workers: Workers,
    memory: Mapping[int, Arrays] | None = None,
    store: Store | None = None,
    on_wait: OnWait | None = None,
) -> QueryResults:
    """Let every client choose its budget for `cycle` with the models that the cycle before left behind.

    A query with a `summary` has two phases: all clients summarise, then each chooses, knowing all summaries.

    Parameters
    ----------
    config
        The run's configuration.
    pools
        Each client's samples before the query.
    trained
        The cycle before: its global model, the clients' own models, and the broadcasts they last downloaded. For a
        client that never trained in it, the global model stands for both.
    cycle
        The cycle that the labels are for.
    memory
        By client, what its query returned as memory at the cycle before.
    store
        Of models trained for queries; by default of this call alone.
    on_wait
        Called with the clients whose queries are being waited for, whenever they are others.

    Returns
    -------
    QueryResults
        What each client chose, and what a real federation would have sent for it.
    """
    clients = sorted(pools)
    _log_idle([client for client in clients if client not in trained.local_states], trained.cycle)
    make = partial(_task, config, pools, trained, cycle, memory or {}, to_arrays(trained.global_state))
    told = _Told(Store() if store is None else store)
    if summarises(make_query(config.query)):
        _first_phase(partial(_asked, workers, "summarise", clients, make, on_wait), told)
    answers: dict[int, QueryResult] = dict(
        _asked(workers, "select", clients, lambda client: told.add_to(make(client)), on_wait)
    )
    used = [answers[client].models | told.used.get(client, frozenset()) for client in clients]
    up = sum(array.nbytes for summary in told.summaries.values() for array in summary.values())
    models = sum("global" in mine for mine in used) * size_in_bytes(trained.global_state)
    selections = {client: answers[client].selection for client in clients}
    return QueryResults(selections, models + up * len(clients), up)


@dataclass
class _Told:
    """What the first phase of a query left behind, by client; models trained in it are too large to be in memory."""

    models: Store
    summaries: dict[int, Arrays] = field(default_factory=dict)
    used: dict[int, frozenset[QueryModel]] = field(default_factory=dict)
    trained: dict[int, list[QueryModel]] = field(default_factory=dict)

    def add_to(self, task: QueryTask) -> QueryTask:
        """Return a client's task of the second phase."""
        mine = {kind: self.models[key_of(kind, task.client)] for kind in self.trained.get(task.client, [])}
        return replace(task, summaries=self.summaries, models={**task.models, **mine})


def _asked(
    workers: Workers,
    method: Literal["summarise", "select"],
    clients: list[int],
    make: Callable[[int], QueryTask],
    on_wait: OnWait | None,
) -> Iterator[tuple[int, Any]]:
    """Yield each client and its answer, as answers come in."""
    waiting: list[int] = []

    def note() -> None:
        if on_wait is not None:
            on_wait(waiting[: workers.count])  # processes have tasks in store

    def tasks() -> Iterator[QueryTask]:
        for client in clients:
            task = make(client)
            waiting.append(client)
            note()
            yield task

    for position, answer in workers.run(method, tasks()):
        waiting.remove(clients[position])
        note()
        yield clients[position], answer


def _first_phase(asked: Callable[[], Iterator[tuple[int, SummaryResult]]], told: _Told) -> None:
    """Let all clients summarise."""
    answers = {}
    for client, answer in asked():
        for kind, model in answer.trained.items():
            told.models[key_of(kind, client)] = model
        told.trained[client], told.used[client] = list(answer.trained), answer.models
        answers[client] = answer.summary
    told.summaries = dict(sorted(answers.items()))  # a sum over them goes by the clients' numbers


def _log_idle(idle: list[int], cycle: int) -> None:
    """Say which clients did not train in a cycle."""
    if idle:
        names = f"Clients {idle}" if len(idle) <= NAMED else f"{len(idle)} clients"
        logger.info("%s did not train in cycle %d: the global model is used instead of their own.", names, cycle)


def _task(
    config: Config,
    pools: Mapping[int, ClientPool],
    trained: CycleState | TrainedCycle,
    cycle: int,
    memory: Mapping[int, Arrays],
    global_state: Arrays,
    client: int,
) -> QueryTask:
    """Return one client's query; its models are read now."""
    pool = pools[client]
    models: dict[QueryModel, Arrays] = {"global": global_state, "local": global_state, "downloaded": global_state}
    if client in trained.local_states:
        models["local"] = to_arrays(trained.local_states[client])
        models["downloaded"] = to_arrays(trained.broadcasts[trained.downloaded[client]])
    size = len(pool.labelled) + len(pool.unlabelled)
    budget = min(cycle_budget(size, config.budget.per_cycle), len(pool.unlabelled))
    return QueryTask(
        client,
        cycle,
        budget,
        pool.labelled,
        pool.labels,
        pool.unlabelled,
        models,
        memory=dict(memory.get(client, {})),
        watched=trained.watched.get(client, {}),
    )
