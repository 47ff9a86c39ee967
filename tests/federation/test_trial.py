"""The page of a trial: its steps, what it asks of clients, and a trial that resumes."""

from __future__ import annotations

import pytest

from kafal_pipeline.data.pools import initial_pool
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.clients import Clients
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers

ASKED = sorted(name for name in vars(Clients) if not name.startswith("_"))
SECONDS = ("train_seconds", "query_seconds", "evaluate_seconds")


class Elsewhere:
    """Clients of which nothing can be seen but what the protocol says."""

    __slots__ = ("ask",)

    def __init__(self, simulation):
        self.ask = {name: lambda name=name: getattr(simulation, name) for name in ASKED}

    def __getattr__(self, name):
        if name not in self.ask:
            raise AttributeError(f"a server asks no client for {name}")
        return self.ask[name]()


@pytest.fixture
def config(make_config):
    return make_config(
        cycles=3, query="fairfal", update="scaffold", federation={"rounds": 2, "between_cycles": "continue"}
    )


@pytest.fixture
def pool(images, config):
    split = [list(range(client, 90, 4)) for client in range(4)]
    return initial_pool(split, images.train_labels, config.budget, config.cycles, config.seed)


def metrics(steps):
    measured = [step.result for step in steps if step.name == "evaluate"]
    return [{key: value for key, value in row.items() if key not in SECONDS} for row in measured]


def test_the_server_sees_nothing_but_what_the_protocol_says(images, config, pool):
    with Workers(images, config) as workers:
        clients = Simulation(config, workers, pool)
        steps = list(Trial(config, images, Elsewhere(clients)).run())
    names = ["train", "evaluate", *(2 * ["query", "annotate", "train", "evaluate"])]
    assert [(step.name, step.cycle) for step in steps] == list(zip(names, 2 * [0] + 4 * [1] + 4 * [2], strict=True))
    measured = [step.result for step in steps if step.name == "evaluate"]
    assert [row["labels"] for row in measured] == [24, 40, 56]
    assert [sum(row["queried_histogram"]) for row in measured] == [24, 16, 16]
    assert measured[2]["bytes_sent"] > measured[0]["bytes_sent"] > 0
    assert clients.pool["labelled_in_cycle"].max() == 2


def test_a_trial_resumes_in_the_middle_of_a_cycle(images, config, pool, tmp_path):
    class Killed(Exception):
        pass

    def kill(state):
        if (state.cycle, state.round) == (2, 1):
            raise Killed

    def store(cycle):
        return Store(tmp_path / "scratch") if cycle is None else Store(tmp_path / f"cycle {cycle}", "me")

    with Workers(images, config) as workers:
        whole = metrics(Trial(config, images, Simulation(config, workers, pool)).run())
        clients, left = Simulation(config, workers, pool, store=store), {}
        with pytest.raises(Killed):
            for step in Trial(config, images, clients).run(on_round=kill):
                left[step.name] = step
        assert left["annotate"].cycle == 2
        again = Simulation(config, workers, clients.pool, store=store, sites=Sites(memory=clients.sites.memory))
        rounds, begin = [], (2, left["train"].result.global_state, left["query"].result)
        resumed = Trial(config, images, again).run(*begin, lambda state: rounds.append(state.round))
        assert metrics(resumed) == whole[2:]
    assert rounds == [2]
