"""The query of one cycle: every client chooses among its own unlabelled samples."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool, cycle_budget
from kafal_pipeline.federation.cycle import CycleState
from kafal_pipeline.federation.states import Arrays, size_in_bytes, to_arrays
from kafal_pipeline.federation.worker import QueryResult, QueryTask
from kafal_pipeline.federation.workers import Workers
from kafal_pipeline.query.base import QueryModel, Selection

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryResults:
    """What the clients chose, and the bytes of the aggregated models that they downloaded for it.

    A client has its own model and the one it last downloaded already; the aggregated one it must be sent.
    """

    selections: dict[int, Selection]
    bytes_down: int


def query_cycle(
    config: Config, pools: Mapping[int, ClientPool], trained: CycleState, cycle: int, workers: Workers
) -> QueryResults:
    """Let every client choose its budget for `cycle` with the models that the cycle before left behind.

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

    Returns
    -------
    QueryResults
        What each client chose, and what a real federation would have sent for it.
    """
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
        tasks.append(QueryTask(client, cycle, budget, pool.labelled, pool.labels, pool.unlabelled, models))
    idle = [client for client in sorted(pools) if client not in trained.local_states]
    if idle:
        logger.info("Clients %s did not train in cycle %d: the global model stands for their own.", idle, trained.cycle)
    answers: list[QueryResult] = workers.map("select", tasks)
    asked_global = sum("global" in answer.models for answer in answers)
    return QueryResults(
        {client: answer.selection for client, answer in zip(sorted(pools), answers, strict=True)},
        asked_global * size_in_bytes(trained.global_state),
    )
