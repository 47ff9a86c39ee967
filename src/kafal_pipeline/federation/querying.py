"""The query of one cycle: every client chooses among its own unlabelled samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kafal_pipeline.data.pools import ClientPool, cycle_budget
from kafal_pipeline.federation.cycle import CycleState
from kafal_pipeline.federation.query_worker import QueryResult, QueryTask, SummaryResult
from kafal_pipeline.federation.states import Arrays, size_in_bytes, to_arrays
from kafal_pipeline.federation.workers import Workers
from kafal_pipeline.query import QUERIES
from kafal_pipeline.query.base import Selection, summarises
from kafal_pipeline.query.pool import QueryModel
from kafal_pipeline.registry import create

if TYPE_CHECKING:
    from kafal_pipeline.config import Config

logger = logging.getLogger(__name__)


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
    trained: CycleState,
    cycle: int,
    workers: Workers,
    memory: Mapping[int, Arrays] | None = None,
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

    Returns
    -------
    QueryResults
        What each client chose, and what a real federation would have sent for it.
    """
    clients = sorted(pools)
    idle = [client for client in clients if client not in trained.local_states]
    if idle:
        logger.info("Clients %s did not train in cycle %d: the global model stands for their own.", idle, trained.cycle)
    tasks = _tasks(config, pools, trained, cycle, memory or {})
    told: list[SummaryResult] = []
    if summarises(create("query", config.query.name, config.query.options, QUERIES)):
        told = workers.map("summarise", tasks)
        summaries = {client: answer.summary for client, answer in zip(clients, told, strict=True)}
        tasks = [
            replace(task, summaries=summaries, models={**task.models, **answer.trained})
            for task, answer in zip(tasks, told, strict=True)
        ]
    answers: list[QueryResult] = workers.map("select", tasks)
    used = [answer.models for answer in answers]
    if told:
        used = [mine | answer.models for mine, answer in zip(used, told, strict=True)]
    up = sum(array.nbytes for answer in told for array in answer.summary.values())
    models = sum("global" in mine for mine in used) * size_in_bytes(trained.global_state)
    selections = {client: answer.selection for client, answer in zip(clients, answers, strict=True)}
    return QueryResults(selections, models + up * len(clients), up)


def _tasks(
    config: Config,
    pools: Mapping[int, ClientPool],
    trained: CycleState,
    cycle: int,
    memory: Mapping[int, Arrays],
) -> list[QueryTask]:
    """Return each client's query, clients in order."""
    global_state = to_arrays(trained.global_state)
    tasks = []
    for client in sorted(pools):
        pool = pools[client]
        models: dict[QueryModel, Arrays] = {"global": global_state, "local": global_state, "downloaded": global_state}
        if client in trained.local_states:
            models["local"] = to_arrays(trained.local_states[client])
            models["downloaded"] = to_arrays(trained.broadcasts[trained.downloaded[client]])
        size = len(pool.labelled) + len(pool.unlabelled)
        budget = min(cycle_budget(size, config.budget.per_cycle), len(pool.unlabelled))
        tasks.append(
            QueryTask(
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
        )
    return tasks
