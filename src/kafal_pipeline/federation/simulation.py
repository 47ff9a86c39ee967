"""Simulates the clients of a federation with processes of this machine; their sites lie in a store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool, Labels, annotate, client_pools, cycle_budget, labels_of
from kafal_pipeline.evaluation import model_measures
from kafal_pipeline.federation.between_rounds import cycle_state
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState, Row
from kafal_pipeline.federation.between_rounds.lazy import Deferred
from kafal_pipeline.federation.between_rounds.store import IN_MEMORY, Store, key_of
from kafal_pipeline.federation.clients import Reply
from kafal_pipeline.federation.failures import problem_of
from kafal_pipeline.federation.prediction import predict_test
from kafal_pipeline.federation.querying import OnWait, answers, table_of
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_worker import QueryTask
from kafal_pipeline.federation.workers.tasks import Broadcast, TrainResult, TrainTask
from kafal_pipeline.federation.workers.watching import begin_watching
from kafal_pipeline.models.state import Arrays, State, size_in_bytes, to_arrays, to_state
from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.pool import QueryModel
from kafal_pipeline.training.local import learning_rate
from kafal_pipeline.update.base import ClientUpdate
from kafal_pipeline.update.factory import make_update

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

NAMED = 10
"""Clients that a line of the log names; of more it gives the number."""


class Simulation:
    """The clients of a federation, as `kafal_pipeline.federation.clients.Clients` describes them.

    Parameters
    ----------
    config
        The run's configuration.
    workers
        Where clients train, choose and predict.
    pool
        The table of samples; for training and queries alone, each client's pool will do.
    store
        Makes the store for what sites keep, of the cycle that trains; of a query alone (None) it is scratch. One that
        is durable saves the rounds, and training resumes after the last round that it opened with.
    sites
        As the cycle before left them. For a client that did not train in it, the global model stands for its own.
    on_wait
        Called with the clients whose queries are being waited for, whenever they are others.
    test_labels
        In the place of those that the data have.

    Attributes
    ----------
    labels
        The number of labelled samples of each client.
    selections
        What each client chose in the last query.
    """

    def __init__(
        self,
        config: Config,
        workers: Workers,
        pool: pd.DataFrame | Mapping[int, ClientPool],
        *,
        store: Callable[[int | None], Store] = lambda _: Store(),
        sites: Sites | None = None,
        on_wait: OnWait | None = None,
        test_labels: NDArray[np.int64] | None = None,
    ) -> None:
        self.config, self.workers, self.sites = config, workers, sites or Sites()
        self.selections: dict[int, Selection] = {}
        self._trained: dict[int, list[QueryModel]] = {}
        self._asked_for: dict[int, frozenset[QueryModel]] = {}
        self._new_store, self._on_wait = store, on_wait
        self._test_labels = test_labels
        self._use(pool)

    def _use(self, pool: pd.DataFrame | Mapping[int, ClientPool]) -> None:
        self.pool = pool
        self.pools = dict(pool) if isinstance(pool, Mapping) else client_pools(pool)
        self.labels = {client: len(mine.labelled) for client, mine in self.pools.items()}

    @contextlib.contextmanager
    def training(self, cycle: int, model: State) -> Iterator[CycleState]:
        """Begin the rounds of a cycle, or resume them; at the end all that was saved is on disk."""
        self._store = self._new_store(cycle)
        self._store.limit = memory_limit(self.config, model, len(self.pools))
        memory = self.sites.memory
        state, self.sites = cycle_state.begin(self._store, self.pools, model, cycle)
        self.sites.memory = memory
        self._messages = cycle_state.states(self._store, "message")
        for client, watched in begin_watching(self.config, self.pools, cycle).items():
            self.sites.watched.setdefault(client, watched)
        try:
            yield state
        except BaseException:
            with contextlib.suppress(CannotWrite):  # what ended the training is what counts
                self._store.wait()
            raise
        self._store.wait()

    def train(self, state: CycleState, clients: Sequence[int]) -> Iterator[Reply]:
        """Train clients for a round, and yield their replies as they come; one that failed keeps what it had before."""
        broadcast = Broadcast(state.cycle, state.round, to_arrays(state.global_state), to_arrays(state.server))
        self.sites.broadcasts[state.round] = to_state(broadcast.model)
        for _, result in self.workers.run("train", self._train_tasks(broadcast, clients)):
            yield self._reply(state, result)

    def save(self, state: CycleState) -> None:
        """Forget what only the round needed, and save all else."""
        self._messages.clear()
        self.sites.forget_broadcasts()
        cycle_state.save(state, self.sites, self._store)

    def _train_tasks(self, broadcast: Broadcast, clients: Sequence[int]) -> Iterator[TrainTask]:
        """Yield the participants' tasks, the largest first, so that none of them is left to the end alone."""
        sites, update = self.sites, make_update(self.config.update)
        for client in sorted(clients, key=lambda client: -self.labels[client]):
            where = f"client {client}, cycle {broadcast.cycle}, round {broadcast.round}"
            with blamed(where, update=update):
                with_model = update.uses_previous()
            yield TrainTask(sites.for_training(client, self.pools[client], with_model=with_model), broadcast)

    def _reply(self, state: CycleState, result: TrainResult) -> Reply:
        client, problem = result.site.client, problem_of(result)
        row = self._row(state, result, failed=problem is not None)
        if problem is not None:
            return Reply(client, row, None, problem)
        self.sites.keep(result.site, state.round, momentum=self.config.federation.client_momentum == "kept")
        if result.message:
            self._messages[client] = to_state(result.message)
        update = partial(self._update, client, result.travel, result.parameters, message=bool(result.message))
        return Reply(client, row, update)

    def _update(self, client: int, travel: float, parameters: frozenset[str], *, message: bool) -> ClientUpdate:
        """Return what a client has sent; its tensors are read when they are looked into."""
        model = Deferred(lambda: self.sites.local_states[client])
        said = Deferred(lambda: self._messages[client]) if message else {}
        return ClientUpdate(model, float(self.labels[client]), travel, parameters, said)

    def _row(self, state: CycleState, result: TrainResult, *, failed: bool) -> Row:
        """Return the row of the table ``rounds``; a client that failed sees that itself, and sends nothing."""
        client, epochs = result.site.client, result.site.state.epochs
        own = sum(array.nbytes for array in self.sites.states[client].batch_norm.values())  # which it does not download
        sent = 0 if failed else size_in_bytes(to_state(result.model)) + size_in_bytes(to_state(result.message))
        return {
            "cycle": state.cycle,
            "round": state.round,
            "client": client,
            "labels": self.labels[client],
            "loss": result.loss,
            "lr": learning_rate(self.config.training, epochs),
            "epochs": epochs,
            "steps": result.steps,
            "bytes_down": size_in_bytes(state.global_state) + size_in_bytes(state.server) - own,
            "bytes_up": sent,
            "seconds": result.seconds,
            "failed": failed,
        }

    def summarise(self, cycle: int, model: State) -> dict[int, Arrays]:
        """Return what each client tells the server before it chooses; models trained for that stay with it."""
        self._scratch, self._trained, self._asked_for = self._new_store(None), {}, {}
        summaries: dict[int, Arrays] = {}
        task = partial(self._query_task, cycle, to_arrays(model))
        for client, answer in answers(self.workers, "summarise", sorted(self.pools), task, self._on_wait):
            for kind, arrays in answer.trained.items():
                self._scratch[key_of(kind, client)] = arrays
            self._trained[client], self._asked_for[client] = list(answer.trained), answer.models
            summaries[client] = answer.summary
        return dict(sorted(summaries.items()))  # a sum over them goes by the clients' numbers

    def select(self, cycle: int, model: State, summaries: Mapping[int, Arrays]) -> dict[int, frozenset[QueryModel]]:
        """Let every client choose its budget; return the models that each has asked for."""
        self._log_idle(cycle - 1)
        global_model = to_arrays(model)

        def task(client: int) -> QueryTask:
            trained = {kind: self._scratch[key_of(kind, client)] for kind in self._trained.get(client, [])}
            return replace(self._query_task(cycle, global_model, client), summaries=dict(summaries), trained=trained)

        chosen = dict(answers(self.workers, "select", sorted(self.pools), task, self._on_wait))
        self.selections = {client: chosen[client].selection for client in sorted(self.pools)}
        self.sites.memory = {client: dict(selection.memory) for client, selection in self.selections.items()}
        return {client: chosen[client].models | self._asked_for.get(client, frozenset()) for client in self.selections}

    def _query_task(self, cycle: int, global_model: Arrays, client: int) -> QueryTask:
        pool = self.pools[client]
        budget = cycle_budget(pool.size, self.config.budget.per_cycle)
        budget = min(budget + self.config.annotation.reserve(budget), len(pool.candidates))
        return QueryTask(self.sites.for_query(client, pool), cycle, budget, global_model)

    def _log_idle(self, cycle: int) -> None:
        """Say which clients did not train in a cycle."""
        idle = [client for client in self.pools if client not in self.sites.local_states]
        if idle:
            names = f"Clients {idle}" if len(idle) <= NAMED else f"{len(idle)} clients"
            logger.info("%s did not train in cycle %d: the global model is used instead of their own.", names, cycle)

    def annotate(self, cycle: int) -> None:
        """Have an oracle label what was chosen."""
        chosen = table_of(self.selections)
        self._use(annotate(self._table, chosen, self.workers.data.train_labels, cycle))

    def bought(self, cycle: int) -> Labels:
        """Return how many labels there are, and which classes those of a cycle have."""
        return labels_of(self._table, cycle, self.workers.data.num_classes)

    def evaluate(self, model: State) -> model_measures.ModelMeasures:
        """Measure a model on the test images whose labels are known: people may have left out some."""
        data = self.workers.data
        labels = data.test_labels if self._test_labels is None else self._test_labels
        known, logits = labels >= 0, predict_test(model, len(labels), self.workers)
        clients = data.test_clients if self.config.partition.method == "natural" else None
        of_clients = None if clients is None else clients[known]
        return model_measures.evaluate(labels[known], logits[known], of_clients, data.client_names)

    @property
    def _table(self) -> pd.DataFrame:
        assert not isinstance(self.pool, Mapping), "a trial begins with the table of samples"
        return self.pool


def memory_limit(config: Config, model: State, clients: int) -> int:
    """Return how many bytes of the sites' states stay in memory: `IN_MEMORY`, or what a round's participants need.

    Each has a model, a momentum, and at most twice as much of what updates keep and send.
    """
    return max(IN_MEMORY, int(4 * size_in_bytes(model) * config.federation.participation * clients))
