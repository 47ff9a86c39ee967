"""What the doctor expects of a run, against what runs do."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import train_cycle

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import client_pools, initial_pool
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state, size_in_bytes
from kafal_pipeline.pipelines.doctor import probe as probing
from kafal_pipeline.pipelines.doctor.probe import Measured, probe
from kafal_pipeline.pipelines.doctor.shape import DataShape
from kafal_pipeline.pipelines.doctor.workload import client_size, labelled_sizes, participants_of, workload

SHAPE = DataShape(120, 30, (8, 8, 1), 10)


def test_steps_are_those_that_a_cycle_of_equal_clients_does():
    """The estimate is exact where its assumption is: clients of one size."""
    config = resolve(
        {
            "cycles": 1,
            "partition": {"clients": 4, "method": "iid"},
            "budget": {"initial": 0.7, "per_cycle": 0.1},
            "federation": {"rounds": 3, "participation": 0.5},
            "training": {"batch_size": 4, "local_epochs": 2, "processes": 1},
        }
    )
    raw = probing._random_images(SHAPE)
    columns = (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels, raw.classes)
    data = ImageData("random", *columns, np.full(1, 0.5), np.full(1, 0.5))
    split = np.arange(120).reshape(4, 30)
    pools = client_pools(initial_pool(split, data.train_labels, config.budget, config.cycles, config.seed))
    start = initial_state(config.model, in_channels=1, num_classes=10, seed=0, cycle=0)
    with Workers(data, config) as workers:
        done = train_cycle(config, pools, start, 0, workers)
    work = workload(config, SHAPE)
    assert work.steps == sum(row["steps"] for row in done.rows)
    assert work.turns == len(done.rows) == 2 + 2 + 4  # all clients train in the last round
    assert work.predictions == work.predictions_in_sequence == SHAPE.test
    assert work.steps_in_sequence == work.steps
    two, three = workload(config, SHAPE, 2), workload(config, SHAPE, 3)
    assert two.steps_in_sequence * 2 == work.steps
    assert three.steps_in_sequence * 2 == work.steps  # of 2, 2 and 4 clients, the last is left over


def test_queries_look_at_what_is_unlabelled():
    config = resolve({"cycles": 3, "partition": {"clients": 4}, "budget": {"initial": 10, "per_cycle": 5}})
    assert labelled_sizes(config, SHAPE) == [10, 15, 20]
    assert workload(config, SHAPE).predictions == 3 * SHAPE.test + 2 * 4 * (20 + 15)


def test_long_tails_and_limits_make_clients_smaller():
    def size(**partition):
        return client_size(resolve({"partition": {"clients": 4, **partition}}), SHAPE)

    assert size() == 30
    assert size(long_tail={"imbalance_ratio": 12, "profile": "step"}) == (5 * 12 + 5 * 1) // 4
    assert size(samples_per_client=7) == 7
    assert size(clients=1000) == 1


@settings(deadline=None, max_examples=50)
@given(
    clients=st.integers(1, 300),
    rounds=st.integers(1, 5),
    participation=st.floats(0.01, 1),
    preset=st.sampled_from(["kafal_code", "kafal_paper"]),
)
def test_more_clients_side_by_side_never_than_there_are(clients, rounds, participation, preset):
    config = resolve(
        {
            "preset": preset,
            "partition": {"clients": clients},
            "federation": {"rounds": rounds, "participation": participation},
        }
    )
    usual, last = participants_of(config)
    assert 1 <= usual <= clients
    assert last in {usual, clients}
    work = workload(config, SHAPE)
    assert work.turns == config.cycles * (usual * (rounds - 1) + last)


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(probing, "TRAINING_SECONDS", 0.1)
    monkeypatch.setattr(probing, "PREDICTION_SECONDS", 0.05)


@pytest.mark.usefixtures("hasty")
class TestProbe:
    @pytest.mark.parametrize("update", ["kcfu", "scaffold", "fednova", "chase_alignment"])
    def test_measures_the_configured_update_and_model(self, update):
        config = resolve({"update": update, "model": "cnn4", "training": {"processes": 1}})
        found = probe(config, DataShape(1000, 100, (12, 10, 3), 4))
        assert isinstance(found, Measured), found
        assert found.step_seconds >= found.alone_seconds > 0
        assert found.image_seconds > 0
        assert found.side_by_side == 1
        state = initial_state(config.model, in_channels=3, num_classes=4, seed=0, cycle=0, image_size=(12, 10))
        assert found.model_bytes == size_in_bytes(state)
        assert found.process_bytes > 10_000_000

    def test_measures_clients_side_by_side_in_the_runs_own_processes(self, monkeypatch):
        monkeypatch.setattr(probing, "cores", lambda: 2)
        found = probe(resolve({"model": "cnn4", "partition": {"clients": 3}}), SHAPE)
        assert isinstance(found, Measured), found
        assert found.side_by_side == 2
        assert found.step_seconds >= found.alone_seconds > 0
        assert not multiprocessing.active_children()

    def test_says_why_it_could_not(self, monkeypatch):
        def broken(*_):
            raise RuntimeError("CUDA out of memory\nmore")

        monkeypatch.setattr("kafal_pipeline.federation.workers.worker.Worker.train", broken)
        alone = resolve({"training": {"processes": 1}})  # this process
        assert probe(alone, SHAPE) == "a training step failed (RuntimeError: CUDA out of memory)"
        tiny = probe(alone, DataShape(100, 10, (4, 4, 1), 2))
        assert isinstance(tiny, str)
        assert "dataset.image_size" in tiny
