"""The same bits every time: runs again, in more processes, in another order, with an end in the middle."""

from __future__ import annotations

import hashlib
import random

import pandas as pd
import pytest
from simulated import query_cycle, train_cycle

from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import annotate, client_pools, initial_pool, make_partition, open_store
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.prediction import predict_test
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state, to_arrays

# A client of 46 images, and hence 5 labels in the first cycle, fails in every other round of it.
OWN_UPDATE = """
from dataclasses import dataclass
import torch
from kafal_pipeline.update.{module} import {base}

@dataclass(frozen=True)
class Failing({base}):
    labels: int = 0

    def loss_terms(self, step):
        wrong = step.label_counts.sum() == self.labels * (1 - step.round % 2)
        for term in super().loss_terms(step):
            yield term * float("nan") if wrong else term
"""
STRATEGIES = {"ksas-kcfu": ("ksas", "kcfu", "KCFU"), "fairfal-scaffold": ("fairfal", "scaffold", "Scaffold")}


class Stopped(Exception):
    """The run is over before its end."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return open_store(DatasetConfig(), folder / "raw", folder / "images")


@pytest.fixture(scope="module", params=list(STRATEGIES))
def trial(request, digits, tmp_path_factory):
    """Return a function that does two cycles and returns a digest of all that a seed decides."""
    query, module, base = STRATEGIES[request.param]
    folder = tmp_path_factory.mktemp("update")
    (folder / f"failing_{module}.py").write_text(OWN_UPDATE.format(module=module, base=base))
    values = {
        "cycles": 2,
        "query": query,
        "model": {"name": "cnn4", "width": 8},
        "partition": {"clients": 5, "min_size": 40},
        "federation": {"rounds": 3, "participation": 0.8, "on_client_failure": "skip"},
    }

    def trial(make_config, processes=1, stop_after=None, checkpoints=None, seed=0):
        training = {"local_epochs": 1, "batch_size": 8, "processes": processes}
        base_config = make_config(**values, seed=seed, training=training)
        split = make_partition(digits.train_labels, base_config.partition, seed)
        smallest = min(map(len, split))
        budget = {"initial": 0.1, "per_cycle": 0.1}
        update = {"name": f"failing_{module}.Failing", "labels": -(-smallest // 10)}
        config = make_config(**values, seed=seed, training=training, budget=budget, update=update)
        pool = initial_pool(split, digits.train_labels, config.budget, config.cycles, seed)
        digest, rows, memory = hashlib.sha256(), [], {}
        model = initial_state(config.model, in_channels=1, num_classes=10, seed=seed, cycle=0, image_size=(8, 8))
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            for cycle in range(config.cycles):
                keeper = None if checkpoints is None else Store(checkpoints / str(cycle), "test")
                for last in (stop_after, None) if stop_after else (None,):
                    with Workers(digits, config) as workers:  # a run that resumes has processes of its own
                        assert workers.count == processes
                        try:
                            state = train_cycle(
                                *(config, client_pools(pool), model, cycle, workers, _stop(last)), keeper
                            )
                            break
                        except Stopped:
                            keeper.wait()
                            keeper = Store(checkpoints / str(cycle), "test")
                with Workers(digits, config) as workers:
                    add(digest, to_arrays(state.global_state))
                    digest.update(predict_test(state.global_state, len(digits.test_labels), workers).tobytes())
                    chosen = query_cycle(config, client_pools(pool), state, cycle + 1, workers, memory)
                rows += state.rows
                model, memory = state.global_state, {client: s.memory for client, s in chosen.selections.items()}
                for client, selection in chosen.selections.items():
                    add(digest, {f"{client}/samples": selection.samples, f"{client}/scores": selection.scores})
                picked = [(client, sample) for client, s in chosen.selections.items() for sample in s.samples]
                queried = pd.DataFrame(picked, columns=["client", "sample"])
                pool = annotate(pool, queried, digits.train_labels, cycle + 1)
                digest.update(pool.to_csv().encode())
        table = pd.DataFrame(rows).drop(columns="seconds")
        assert table["failed"].any()
        digest.update(table.to_csv().encode())
        return digest.hexdigest()

    return trial


def _stop(after):
    def on_round(state):
        if after is not None and state.round == after:
            raise Stopped

    return on_round


def add(digest, arrays):
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())


@pytest.fixture(scope="module")
def first(trial):
    return {}


@pytest.fixture
def expected(first, trial, make_config):
    """The digest of a plain run."""
    if not first:
        first["digest"] = trial(make_config)
    return first["digest"]


def test_a_run_repeats_itself(trial, expected, make_config):
    assert trial(make_config) == expected
    assert trial(make_config, seed=1) != expected


def test_two_processes(trial, expected, make_config):
    assert trial(make_config, processes=2) == expected


def test_clients_in_another_order(trial, expected, make_config, monkeypatch):
    original, chance = Workers.run, random.Random(0)

    def run(self, method, tasks):
        tasks = list(enumerate(tasks))
        chance.shuffle(tasks)
        for position, result in original(self, method, [task for _, task in tasks]):
            yield tasks[position][0], result

    monkeypatch.setattr(Workers, "run", run)
    assert trial(make_config) == expected


@pytest.mark.parametrize("after", [1, 3])
def test_an_end_after_a_round_and_another_run_that_resumes(trial, expected, make_config, tmp_path, after):
    assert trial(make_config, stop_after=after, checkpoints=tmp_path) == expected
