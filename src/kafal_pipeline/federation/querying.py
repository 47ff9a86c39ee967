"""The query of one cycle: every client chooses among its own unlabelled samples."""

from __future__ import annotations

from collections.abc import Mapping

from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool, cycle_budget
from kafal_pipeline.federation.cycle import CycleState
from kafal_pipeline.federation.states import Arrays, to_arrays
from kafal_pipeline.federation.worker import QueryTask
from kafal_pipeline.federation.workers import Workers
from kafal_pipeline.query.base import QueryModel, Selection


def query_cycle(
    config: Config, pools: Mapping[int, ClientPool], trained: CycleState, cycle: int, workers: Workers
) -> dict[int, Selection]:
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
    dict
        A `Selection` for each client.
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
    return dict(zip(sorted(pools), workers.map("select", tasks), strict=True))
