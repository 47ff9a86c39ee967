"""Runs a query in one worker process: shows it a client's pool and trains the models that it asks for."""

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kafal_pipeline.common.errors import NotAllowed, did_you_mean
from kafal_pipeline.common.randomness import Purpose, numpy_generator, seed_global_generators
from kafal_pipeline.common.users_code import blamed, own_classes
from kafal_pipeline.federation.site import Site
from kafal_pipeline.federation.workers.query_models import TRAINED, QueryModelTrainer
from kafal_pipeline.models.state import Arrays, read_only, to_arrays, to_state
from kafal_pipeline.query.base import Query, Selection, Summarises, checked_arrays, checked_selection
from kafal_pipeline.query.pool import Head, Outputs, PoolView, QueryModel
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.inference import outputs


@dataclass(frozen=True)
class QueryTask:
    """One client's query: `trained` holds the models that its first phase trained, `summaries` all clients' of it."""

    site: Site
    cycle: int
    budget: int
    global_model: Arrays
    trained: dict[QueryModel, Arrays] = field(default_factory=dict)
    summaries: dict[int, Arrays] = field(default_factory=dict)


@dataclass(frozen=True)
class QueryResult:
    """What one client chose, and the kinds of models that its query asked for."""

    selection: Selection
    models: frozenset[QueryModel]


@dataclass(frozen=True)
class SummaryResult:
    """What one client tells the server, the kinds of models that took, and those trained for it, which stay with it."""

    summary: Arrays
    models: frozenset[QueryModel]
    trained: dict[QueryModel, Arrays]


class ClientModels:
    """The models of one client's query, loaded or trained when they are asked for.

    `network` takes the states in turn; `in_use` is the same as it computes in the configured precision.
    """

    def __init__(
        self, task: QueryTask, network: nn.Module, in_use: nn.Module, pixels: Pixels, trainer: QueryModelTrainer
    ) -> None:
        self.task, self.network, self.in_use, self.pixels, self.trainer = task, network, in_use, pixels, trainer
        site, model = task.site, task.global_model
        local, downloaded = (model if own is None else own for own in (site.model, site.downloaded))
        self.states: dict[QueryModel, Arrays] = {
            **{"global": model, "local": local, "downloaded": downloaded},
            **task.trained,
        }
        self._given = frozenset(self.states)
        self.used: set[QueryModel] = set()
        self._loaded: QueryModel | None = None

    @property
    def trained(self) -> dict[QueryModel, Arrays]:
        """The states of models trained here."""
        return {kind: state for kind, state in self.states.items() if kind not in self._given}

    def load(self, kind: QueryModel) -> nn.Module:
        """Return the network with the state of that model."""
        if kind not in get_args(QueryModel):
            raise NotAllowed(f"the pool was asked for the model {kind!r}. {did_you_mean(kind, get_args(QueryModel))}")
        self.used.add(kind)
        if kind in {"finetuned", "distilled"}:
            self.used.add("global")
        if kind not in self.states:
            self._loaded = None
            self.states[kind] = self._train(kind)
        if self._loaded != kind:
            self.network.load_state_dict(to_state(self.states[kind]))
            self._loaded = kind
        return self.in_use

    def forward(self, kind: QueryModel, samples: NDArray[np.int64]) -> Outputs:
        """Return what a model says of training samples."""
        return outputs(self.load(kind), self.pixels, samples)

    def head(self, kind: QueryModel) -> Head:
        """Return a model's last layer."""
        head: nn.Linear = self.load(kind).head  # type: ignore[assignment]
        return Head(head.weight.detach().clone(), head.bias.detach().clone())

    def _train(self, kind: QueryModel) -> Arrays:
        if kind not in TRAINED or not len(self.task.site.pool.labelled):
            return self.states["global"]  # a client without labels has nothing to train on
        self.trainer.train(kind, self.network, self.task.site, self.task.cycle, to_state(self.states["global"]))
        return to_arrays(self.network.state_dict())


def _pool(task: QueryTask, num_classes: int, models: ClientModels) -> PoolView:
    site = task.site
    return PoolView(
        *(site.client, site.pool.candidates, site.pool.labelled, site.pool.labels, num_classes),
        models.forward,
        models.head,
        {client: read_only(summary) for client, summary in task.summaries.items()},
        read_only(site.memory),
        read_only(site.watched or {}),
    )


def summarise(query: Summarises, task: QueryTask, num_classes: int, models: ClientModels, seed: int) -> SummaryResult:
    """Do the first phase of one client's query."""
    _seed_for_own(query, task, seed)
    with blamed(_where(task), query=query, model=models.network):
        summary = checked_arrays(query.summary(_pool(task, num_classes, models)), "summary")
    return SummaryResult(summary, frozenset(models.used), models.trained)


def select(query: Query, task: QueryTask, num_classes: int, models: ClientModels, seed: int) -> QueryResult:
    """Let the query choose; where there is nothing to choose it is not asked, and keeps what it kept before."""
    if not task.budget:
        return QueryResult(Selection(task.site.pool.candidates[:0], np.empty(0), task.site.memory), frozenset())
    rng = numpy_generator(seed, Purpose.QUERY, task.cycle, 0, task.site.client)
    _seed_for_own(query, task, seed)
    with blamed(_where(task), query=query, model=models.network):
        selection = query.select(_pool(task, num_classes, models), task.budget, rng)
        selection = checked_selection(selection, task.site.pool.candidates, task.budget)
    return QueryResult(selection, frozenset(models.used))


def _seed_for_own(query: object, task: QueryTask, seed: int) -> None:
    """Let what a user's own query draws from the global generators be the same in however many processes."""
    if own_classes({"query": query}):
        seed_global_generators(seed, Purpose.QUERY, task.cycle, 0, task.site.client)


def _where(task: QueryTask) -> str:
    return f"client {task.site.client}, cycle {task.cycle}"
