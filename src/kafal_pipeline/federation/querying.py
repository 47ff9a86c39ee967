"""Asks the clients of a simulation for their choices, and puts these into a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_worker import QueryTask
from kafal_pipeline.query.base import Selection

if TYPE_CHECKING:
    import pandas as pd

OnWait = Callable[[list[int]], None]
"""Called with the clients whose queries are being waited for, whenever they are others."""


def answers(
    workers: Workers,
    phase: Literal["summarise", "select"],
    clients: list[int],
    make: Callable[[int], QueryTask],
    on_wait: OnWait | None,
) -> Iterator[tuple[int, Any]]:
    """Yield each client and its answer, as answers come in; `make` returns a client's task."""
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

    for position, answer in workers.run(phase, tasks()):
        waiting.remove(clients[position])
        note()
        yield clients[position], answer


def table_of(selections: Mapping[int, Selection]) -> pd.DataFrame:
    """Return what clients chose: columns ``client``, ``sample``, ``score`` and ``rank``."""
    import pandas as pd

    sizes = [len(s.samples) for s in selections.values()]
    return pd.DataFrame(
        {
            "client": np.repeat(list(selections), sizes),
            "sample": np.concatenate([s.samples for s in selections.values()]),
            "score": np.concatenate([s.scores for s in selections.values()]),
            "rank": np.concatenate([np.arange(size) for size in sizes]),
        }
    )
