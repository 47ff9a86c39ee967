"""Many clients: the same bits from disk as from memory, and few models in memory at a time."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from simulated import query_cycle, train_cycle

from kafal_pipeline.data.pools import client_pools, initial_pool
from kafal_pipeline.federation import simulation
from kafal_pipeline.federation.between_rounds.client_states import ClientState
from kafal_pipeline.federation.between_rounds.lazy import Deferred, RoundUpdates
from kafal_pipeline.federation.between_rounds.store import IN_MEMORY, Store
from kafal_pipeline.federation.simulation import memory_limit
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_worker import QueryResult, SummaryResult
from kafal_pipeline.federation.workers.tasks import TrainResult
from kafal_pipeline.models.state import initial_state, to_arrays, to_state
from kafal_pipeline.query.base import Selection
from kafal_pipeline.update.base import ClientUpdate
from kafal_pipeline.update.fednova import FedNova

CLIENTS = 30


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def equal_arrays(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def everything_on_disk(monkeypatch):
    """Memory for nothing; returns the stores that were made."""
    made = []

    class Small(Store):
        limit = property(lambda _: 0, lambda *_: None)

        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    def apply():
        monkeypatch.setattr(simulation, "Store", Small)
        return made

    return apply


@pytest.mark.parametrize(("update", "query"), [("scaffold", "random"), ("chase_alignment", "qbc"), ("fednova", "ifal")])
def test_from_disk_come_the_same_bits_as_from_memory(
    images, make_config, pools, start, everything_on_disk, update, query
):
    config = make_config(update=update, query=query, federation={"rounds": 3, "batch_norm": "local"})

    def trial():
        with Workers(images, config) as workers:
            state = train_cycle(config, pools, start, 0, workers)
            return state, query_cycle(config, pools, state, 1, workers)

    (inside, chosen), stores = trial(), everything_on_disk()
    outside, chosen_outside = trial()
    assert list(stores[0].folder.iterdir())
    assert stores[0].in_memory == 0
    assert equal(inside.global_state, outside.global_state)
    assert equal(inside.server, outside.server)
    for kind in ("local_states", "broadcasts"):
        first, second = getattr(inside, kind), getattr(outside, kind)
        assert sorted(first) == sorted(second)
        assert all(equal(first[key], second[key]) for key in first)
    for client, mine in inside.states.items():
        other = outside.states[client]
        assert (mine.epochs, mine.steps) == (other.epochs, other.steps)
        assert (mine.momentum is None) == (other.momentum is None)
        for name in ("momentum", "kept", "batch_norm"):
            assert equal_arrays(getattr(mine, name) or {}, getattr(other, name) or {})
    for client, selection in chosen.selections.items():
        assert selection.samples.tolist() == chosen_outside.selections[client].samples.tolist()
        assert selection.scores.tolist() == chosen_outside.selections[client].scores.tolist()


class Counted:
    """Workers that compute nothing and count the results and tasks that are in memory."""

    def __init__(self, answer):
        self.answer, self.order, self.most = answer, [], 0
        self._alive = weakref.WeakSet()

    def run(self, method, tasks):
        for position, task in enumerate(tasks):
            result = self.answer(method, task)
            self._alive |= {task, result}
            self.order.append((method, task.site.client))
            del task
            yield position, result
            del result
            self.most = max(self.most, len(self._alive))


class Hashable:
    """Makes a dataclass of arrays fit for a `WeakSet`."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.fixture
def many(images, make_config, monkeypatch):
    for name in ("federation.simulation.TrainTask", "federation.simulation.QueryTask"):
        module, cls = name.rsplit(".", 1)
        original = getattr(__import__(f"kafal_pipeline.{module}", fromlist=[cls]), cls)
        monkeypatch.setattr(f"kafal_pipeline.{name}", type(cls, (Hashable, original), {}))
    config = make_config(
        partition={"clients": CLIENTS}, budget={"initial": 1, "per_cycle": 1}, query="ahfal",
        federation={"rounds": 2, "participation": 0.1},
    )  # fmt: skip
    split = [list(range(client, 90, CLIENTS)) for client in range(CLIENTS)]
    pools = client_pools(initial_pool(split, images.train_labels, config.budget, 2, config.seed))
    return config, pools


class HashableTrainResult(Hashable, TrainResult):
    pass


class HashableSummaryResult(Hashable, SummaryResult):
    pass


class HashableQueryResult(Hashable, QueryResult):
    pass


def trained_by(task):
    state = {
        name: array + task.site.client if array.dtype.kind == "f" else array
        for name, array in task.broadcast.model.items()
    }
    site = replace(task.site, model=state, state=ClientState({"m": np.ones(1)}, 1))
    return HashableTrainResult(site, 0.5, 1, 0.0, 1.0, frozenset({"stem.weight"}), {})


def test_tasks_are_made_one_by_one_the_largest_first(many, start):
    config, pools = many
    pools[7] = pools[7].__class__(np.arange(3), np.zeros(3, dtype=np.int64), pools[7].unlabelled, pools[7].unlabelled)
    workers = Counted(lambda _, task: trained_by(task))
    state = train_cycle(config, pools, start, 0, workers)
    last = [client for _, client in workers.order[-CLIENTS:]]
    assert last == [7, *(client for client in range(CLIENTS) if client != 7)]
    assert [row["client"] for row in state.rows if row["round"] == 1] == list(range(CLIENTS))
    assert workers.most <= 3  # of 33 tasks and as many results


def test_queries_are_made_one_by_one_and_models_trained_for_them_come_back(many, start, everything_on_disk):
    config, pools = many
    trained = train_cycle(config, pools, start, 0, Counted(lambda _, task: trained_by(task)))
    stores, seen = everything_on_disk(), {}

    def answer(method, task):
        if method == "summarise":
            client = task.site.client
            model = {"weight": np.full(3, client)}
            return HashableSummaryResult({"told": np.array(client)}, frozenset({"global"}), {"local_only": model})
        seen[task.site.client] = task.trained["local_only"]["weight"].tolist(), list(task.summaries)
        assert task.site.model.keys() == task.global_model.keys()
        return HashableQueryResult(Selection(task.site.pool.unlabelled[:1], np.zeros(1)), frozenset())

    workers = Counted(answer)
    result = query_cycle(config, pools, trained, 1, workers)
    assert seen == {client: ([client] * 3, list(range(CLIENTS))) for client in range(CLIENTS)}
    assert [client for _, client in workers.order] == 2 * list(range(CLIENTS))
    assert list(result.selections) == list(range(CLIENTS))
    assert list(stores[0].folder.iterdir())
    assert stores[0].in_memory == 0
    assert workers.most <= CLIENTS + 3  # of 60 tasks and as many results; the choices are the results' own


def test_models_are_aggregated_one_at_a_time(start):
    reads, alive = [], weakref.WeakSet()

    class State(dict):
        __hash__ = object.__hash__

    def read(client):
        assert len(alive) <= 1
        reads.append(client)
        state = State({name: tensor + client for name, tensor in start.items()})
        alive.add(state)
        return state

    names = frozenset({"stem.weight"})
    sent = {client: ClientUpdate({}, 1.0 + client, 2.0, names) for client in range(9)}
    updates = RoundUpdates(
        [partial(lambda client, of: replace(of, state=Deferred(partial(read, client))), *item) for item in sent.items()]
    )
    model, _ = FedNova().aggregate(start, {}, updates, 9)
    assert reads == 2 * list(range(9))  # once for the average, once for the changes
    shift = sum(client * (1 + client) for client in range(9)) / sum(1 + client for client in range(9))
    assert model.keys() == start.keys()
    for name, tensor in model.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, start[name] + shift)
    assert [update.labels for update in updates[2:4]] == [3.0, 4.0]
    assert updates[-1].message == {}


def test_all_participants_of_a_round_have_room_in_memory(make_config):
    config = make_config(federation={"participation": 0.5})
    big = {"weight": torch.zeros(10 * 2**20)}
    assert memory_limit(config, big, 4) == 4 * 2 * 40 * 2**20
    assert memory_limit(config, {"weight": torch.zeros(1)}, 4) == IN_MEMORY


def test_states_keep_their_bits_on_the_way_to_arrays_and_back():
    state = initial_state("resnet8", in_channels=1, num_classes=3, seed=0, cycle=0)
    assert equal(to_state(to_arrays(state)), state)
