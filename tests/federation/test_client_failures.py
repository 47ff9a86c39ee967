"""Clients whose training goes wrong: named, left out, and never aggregated."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from simulated import train_cycle

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import ModelConfig
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.between_rounds.client_states import to_record
from kafal_pipeline.federation.workers.lane import Lane
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state
from kafal_pipeline.update.base import weighted_average
from kafal_pipeline.update.fedavg import FedAvg
from kafal_pipeline.update.names import UPDATES

MODEL = ModelConfig(name="cnn4", options={"width": 4})
NAN = np.array([np.nan], dtype=np.float32)
INFINITE = np.array([np.inf], dtype=np.float32)


def with_state(result, **changes):
    state = dataclasses.replace(result.site.state, **changes)
    return dataclasses.replace(result, site=dataclasses.replace(result.site, state=state))


SPOILS = {
    "loss": lambda result: dataclasses.replace(result, loss=float("inf")),
    "model": lambda result: dataclasses.replace(
        result, site=dataclasses.replace(result.site, model={**result.model, "head.weight": INFINITE})
    ),
    "momentum": lambda result: with_state(result, momentum={**result.site.state.momentum, "head.bias": NAN}),
    "message": lambda result: dataclasses.replace(result, message={**result.message, "head.bias": NAN}),
    "update's state": lambda result: with_state(result, kept={**result.site.state.kept, "head.bias": NAN}),
}


def run(images, config, pools, start, cycle=0, on_round=None):
    with Workers(images, config) as workers:
        return train_cycle(config, pools, start, cycle, workers, on_round)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def same_arrays(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def start():
    return initial_state(MODEL, in_channels=1, num_classes=3, seed=0, cycle=0, image_size=(6, 6))


@pytest.fixture
def spoil(monkeypatch):
    """Return a function that spoils what chosen clients bring home from chosen rounds."""

    def spoil(clients, rounds=range(100), what="model"):
        original = Lane.train

        def train(self, task):
            result = yield from original(self, task)
            return SPOILS[what](result) if task.site.client in clients and task.broadcast.round in rounds else result

        monkeypatch.setattr(Lane, "train", train)

    return spoil


@pytest.fixture
def everybody(make_config):
    """Return a function that makes a configuration in which all four clients train in every round."""

    def make(on_client_failure="skip", **changes):
        federation = {"participation": 1.0, "on_client_failure": on_client_failure, **changes.pop("federation", {})}
        return make_config(model=MODEL.model_dump(), federation=federation, **changes)

    return make


def without_labels(pools, client):
    nobody = np.empty(0, dtype=np.int64)
    return {**pools, client: ClientPool(nobody, nobody, pools[client].unlabelled, pools[client].initial_unlabelled)}


@pytest.mark.parametrize("what", SPOILS)
def test_a_failure_ends_the_run_by_default(images, everybody, make_config, pools, start, spoil, what):
    assert make_config().federation.on_client_failure == "fail"
    spoil({1, 2}, {1}, what)
    with pytest.raises(UserError, match=rf"cycle 3, round 1, client 1: the {what} is no longer finite.*training\.lr"):
        run(images, everybody("fail"), pools, start, cycle=3)


@pytest.mark.parametrize("what", SPOILS)
def test_a_skipped_client_resumes_from_what_it_had(images, everybody, pools, start, spoil, what):
    seen = []

    def note(state):
        seen.append(
            {
                client: {
                    "client": to_record(state.states[client]),
                    "local": {key: tensor.numpy().copy() for key, tensor in state.local_states[client].items()},
                    "downloaded": {"round": np.array(state.downloaded[client])},
                    "watched": state.watched[client],
                }
                for client in pools
            }
        )
        assert set(state.downloaded.values()) == set(state.broadcasts)

    spoil({2}, {1}, what)
    run(images, everybody(query="chase", training={"local_epochs": 2}), pools, start, on_round=note)
    parts = ("client", "local", "downloaded")
    for client in pools:
        for before, after in ((0, 1), (1, 2)):
            stays = client == 2 and after == 1
            for part in parts:
                assert same_arrays(seen[before][client][part], seen[after][client][part]) == stays, (client, part)
    assert same_arrays(seen[1][2]["watched"], seen[0][2]["watched"])
    assert [seen[round_][2]["downloaded"]["round"] for round_ in range(3)] == [0, 0, 2]


@pytest.mark.parametrize("update", sorted(UPDATES))
def test_aggregation_is_that_of_the_valid_clients_alone(images, everybody, pools, start, spoil, update):
    """As if the client had no labels: the same clients in the federation, one less that trains."""
    config = everybody(update=update)
    expected = run(images, config, without_labels(pools, 2), start)
    spoil({2})
    state = run(images, config, pools, start)
    assert equal(state.global_state, expected.global_state)
    assert equal(state.server, expected.server)
    assert not equal(state.global_state, start)
    assert set(state.local_states) == set(state.downloaded) == {0, 1, 3}


def test_a_round_without_a_client_is_the_mean_of_the_others(images, everybody, pools, start, spoil):
    models, local = [start], []

    def note(state):
        models.append(state.global_state)
        local.append({client: dict(state.local_states[client]) for client in pools})

    spoil({0}, {1})
    run(images, everybody(update="fedavg"), pools, start, on_round=note)
    weights = [float(len(pools[client].labelled)) for client in (1, 2, 3)]
    mean = weighted_average(models[1], [local[1][client] for client in (1, 2, 3)], weights)
    assert equal(models[2], mean)


def test_scaffolds_control_stays_the_mean_of_the_clients_when_one_is_skipped(images, everybody, pools, start, spoil):
    def check(state):
        for name, control in state.server.items():
            mean = sum(torch.as_tensor(c.kept[name]) for c in state.states.values() if c.kept) / len(pools)
            torch.testing.assert_close(control, mean, rtol=1e-4, atol=1e-6)

    spoil({1}, {0, 2})
    state = run(images, everybody(update="scaffold", federation={"rounds": 4}), pools, start, on_round=check)
    assert state.server
    assert all(client.kept for client in state.states.values())


def test_rows_say_who_was_left_out(images, everybody, pools, start, spoil):
    spoil({1}, {0, 2}, "loss")
    rows = run(images, everybody(), pools, start).rows
    assert len(rows) == 3 * 4
    assert [(row["round"], row["client"]) for row in rows if row["failed"]] == [(0, 1), (2, 1)]
    for row in rows:
        assert np.isfinite(row["loss"]) != row["failed"]
        assert (row["bytes_up"] == 0) == row["failed"]
        assert row["bytes_down"] > 0


def test_a_warning_names_cycle_round_and_client(images, everybody, pools, start, spoil, caplog):
    spoil({1, 3}, {1})
    with caplog.at_level(logging.WARNING):
        run(images, everybody(), pools, start, cycle=2)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.split(":")[0] for line in lines] == ["cycle 2, round 1, client 1", "cycle 2, round 1, client 3"]


def test_a_round_whose_clients_all_fail_makes_no_model(images, everybody, pools, start, spoil):
    finished = []
    spoil({0, 1, 2, 3}, {1})
    with pytest.raises(UserError, match=r"cycle 0, round 1: every client.*\(client 0, 1, 2, 3\).*training\.lr"):
        run(images, everybody(), pools, start, on_round=lambda state: finished.append(state.round))
    assert finished == [1]


def test_a_round_whose_clients_have_no_labels_makes_no_model(images, make_config, pools, start):
    config = make_config(
        model=MODEL.model_dump(), federation={"participation": 0.25, "all_clients_last_round": False, "rounds": 8}
    )
    for client in (0, 1, 3):
        pools = without_labels(pools, client)
    with pytest.raises(UserError, match=r"cycle 0, round \d: none of the clients.*budget\.initial.*participation"):
        run(images, config, pools, start)


def test_what_overflows_on_the_server_is_no_model(images, everybody, pools, start, monkeypatch):
    def aggregate(self, global_state, server, updates, clients):
        return {**global_state, "head.bias": global_state["head.bias"] / 0}, server

    monkeypatch.setattr(FedAvg, "aggregate", aggregate)
    with pytest.raises(UserError, match=r"cycle 0, round 0: every client is finite, but what fedavg aggregates"):
        run(images, everybody(update="fedavg"), pools, start)


def test_a_learning_rate_that_breaks_everybody_is_no_model_under_skip(images, everybody, pools, start):
    with pytest.raises(UserError, match=r"cycle 0, round \d: every client that trained failed.*found 1e\+30"):
        run(images, everybody(training={"lr": 1e30}), pools, start)


OWN_UPDATE = """
from dataclasses import dataclass
import torch
from kafal_pipeline.update.kcfu import KCFU

@dataclass(frozen=True)
class Broken(KCFU):
    labels: int = 0

    def loss_terms(self, step):
        wrong = step.label_counts.sum() == self.labels
        for term in super().loss_terms(step):
            yield term * float("nan") if wrong else term
"""


def test_a_loss_that_is_not_a_number_for_one_client(images, everybody, pools, start, tmp_path, monkeypatch):
    """The client's steps spoil network and momentum for good; whoever trains next in the same place is untouched."""
    (tmp_path / "broken_update.py").write_text(OWN_UPDATE)
    monkeypatch.syspath_prepend(tmp_path)
    pools = {**pools, 1: dataclasses.replace(pools[1], labelled=pools[1].labelled[:5], labels=pools[1].labels[:5])}
    options = {"name": "broken_update.Broken", "labels": 5}
    with pytest.raises(UserError, match=r"cycle 0, round 0, client 1: the model is no longer finite \(mean loss nan\)"):
        run(images, everybody("fail", update=options), pools, start)
    state = run(images, everybody(update=options), pools, start)
    expected = run(images, everybody(update="kcfu"), without_labels(pools, 1), start)
    assert equal(state.global_state, expected.global_state)
    assert [row["client"] for row in state.rows if row["failed"]] == [1, 1, 1]
