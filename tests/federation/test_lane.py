"""Lanes: recorded steps and clients side by side give the bits of plain steps, one client after another."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from simulated import train_cycle

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.threads import single_thread
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.site import Site
from kafal_pipeline.federation.workers.lane import Lane, side_by_side
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.tasks import Broadcast, TrainTask
from kafal_pipeline.federation.workers.worker import Worker
from kafal_pipeline.models.state import initial_state, to_arrays
from kafal_pipeline.training.recording import Recordings
from kafal_pipeline.update.fedavg import FedAvg

CLIENTS = {0: (9, 8), 1: (7, 5)}
"""Labelled and unlabelled samples of two clients; the batches have 4, hence other sizes at the end of their epochs."""


@pytest.fixture
def two_pools(images):
    pools, start = {}, 0
    for client, (labelled, others) in CLIENTS.items():
        known, unknown = np.arange(start, start + labelled), np.arange(start + labelled, start + labelled + others)
        pools[client] = ClientPool(known, images.train_labels[known], unknown, unknown)
        start += labelled + others
    return pools


class Recorder:
    """Calls a recorded step again with all values of Python that it read when it was recorded, as a CUDA graph does.

    Checks before that all tensors that it reads and writes are where they were, and puts back what it has changed.
    """

    def __init__(self, lane):
        self.lane, self.replays = lane, 0

    def networks(self):
        return [net for net in (self.lane.student, self.lane._teacher, self.lane._previous) if net is not None]

    def tensors(self):
        space = self.lane._workspace
        yield from (tensor for net in self.networks() for tensor in (*net.parameters(), *net.buffers()))
        yield from (space.lr, space.loss, space.label_counts, *space.momentum, *space.shift, *space.broadcast)

    def values(self):
        """Return what of the lane is no tensor: the rest of a step is in the function that is recorded."""
        space = self.lane._workspace
        modes = [(module, module.training) for net in self.networks() for module in net.modules()]
        return space.pull, space.shifted, modes

    def set_values(self, values):
        space, (pull, shifted, modes) = self.lane._workspace, values
        space.pull, space.shifted = pull, shifted
        for module, training in modes:
            module.training = training

    def __call__(self, function):
        recorded, frozen = list(self.tensors()), self.values()

        def replay():
            now = {id(tensor) for tensor in self.tensors()}
            assert all(id(tensor) in now for tensor in recorded)
            self.replays += 1
            live = self.values()
            self.set_values(frozen)
            function()
            self.set_values(live)

        return type("Recording", (), {"replay": staticmethod(replay)})


def two_cycles(images, config, pools, record):
    """Train two cycles in one lane; return models, tables of rounds and the number of replayed steps."""
    start = initial_state("resnet8", in_channels=1, num_classes=3, seed=0, cycle=0)
    with Workers(images, config) as workers:
        lane = workers._local._lanes[0]
        lane._workspace.lr = torch.zeros(())  # as on a GPU, where a recorded step must read it again
        recorder = Recorder(lane)
        if record:
            lane._recordings = Recordings(recorder)
        states = [train_cycle(config, pools, start, cycle, workers) for cycle in range(2)]
    models = [state.global_state for state in states] + [model for s in states for model in s.local_states.values()]
    tables = [[{**row, "seconds": 0} for row in state.rows] for state in states]
    return models, tables, recorder.replays


@pytest.mark.parametrize(
    "update",
    ["fedavg", "fedprox", "scaffold", "kcfu", "chase_alignment", {"name": "fedavg", "loss": "edl"}],
    ids=lambda update: update if isinstance(update, str) else "edl",
)
def test_recorded_steps_give_the_bits_of_plain_ones(images, make_config, two_pools, update):
    config = make_config(
        update=update,
        partition={"clients": 2},
        federation={"rounds": 2, "participation": 1.0},
        training={"local_epochs": 3, "lr_drop_epoch": 5, "augmentation": {"flip": True, "crop_padding": 1}},
    )
    plain, plain_rows, _ = two_cycles(images, config, two_pools, record=False)
    recorded, rows, replays = two_cycles(images, config, two_pools, record=True)
    assert rows == plain_rows
    assert replays > sum(row["steps"] for table in rows for row in table) / 3
    for one, other in zip(plain, recorded, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def tasks(images, count):
    state = to_arrays(initial_state("resnet8", in_channels=1, num_classes=3, seed=0, cycle=0))
    for client in range(count):
        known = np.arange(10 * client, 10 * client + 4 + client)
        others = np.arange(50, 60)
        pool = ClientPool(known, images.train_labels[known], others, others)
        yield TrainTask(Site(client, pool), Broadcast(0, 1, state))


def lanes_of(images, config, count):
    worker = Worker(images, config)
    return [worker._new_lane() for _ in range(count)]


def test_a_clients_first_round_is_not_replayed_in_its_later_ones(images, make_config, two_pools):
    """In a round after the first, one client has a model of its own to align with, and another none."""
    config = make_config(
        update="chase_alignment",
        partition={"clients": 2},
        federation={"rounds": 5, "participation": 0.5, "all_clients_last_round": True},
        training={"local_epochs": 2},
    )
    plain, plain_rows, _ = two_cycles(images, config, two_pools, record=False)
    recorded, rows, _ = two_cycles(images, config, two_pools, record=True)
    firsts = [{row["client"]: row["round"] for row in reversed(table)} for table in rows]
    assert any(max(first.values()) > 0 for first in firsts)
    assert rows == plain_rows
    for one, other in zip(plain, recorded, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_three_lanes_give_the_bits_of_one_after_another(images, make_config):
    config = make_config(update="kcfu", training={"local_epochs": 2})
    todo = list(tasks(images, 5))
    with single_thread():
        alone = dict(side_by_side(lanes_of(images, config, 1), todo))
        together = dict(side_by_side(lanes_of(images, config, 3), todo))
    assert sorted(together) == list(range(5))
    for position, result in alone.items():
        other = together[position]
        assert (result.site.client, result.loss, result.steps) == (other.site.client, other.loss, other.steps)
        for name, array in result.model.items():
            assert np.array_equal(array, other.model[name]), name


class Noting:
    """A lane that notes its clients, and has one step for each."""

    def __init__(self):
        self.clients = []

    def train(self, task):
        self.clients.append(task.site.client)
        yield
        return task.site.client

    def advance(self, task, steps):
        return task.site.client if next(steps, "the end") == "the end" else None


def test_a_client_comes_back_to_its_lane_and_no_lane_is_idle(images):
    lanes = [Noting() for _ in range(3)]
    todo = list(tasks(images, 5))
    for chosen in ([4, 1, 0], [3, 2, 1], [0, 3]):
        assert dict(side_by_side(lanes, [todo[client] for client in chosen])) == dict(enumerate(chosen))
    # 4 and 1 share a lane, and so do 0 and 3: the second of each pair goes where nobody is at home.
    assert [lane.clients for lane in lanes] == [[0, 3, 0], [4, 1, 3], [1, 2]]


class Refuses(FedAvg):
    """An update of a user's own that fails for a client of six labels."""

    def client_loss(self, step):
        if step.label_counts.sum() == 6:
            raise SystemExit(0)
        return super().client_loss(step)


def test_side_by_side_too_the_client_is_named_whose_update_fails(images, make_config):
    lanes = lanes_of(images, make_config(), 3)
    lanes = [Lane(lane.config, Refuses(), lane.pixels, 3, lambda lane=lane: deepcopy(lane.student)) for lane in lanes]
    with pytest.raises(UserError, match=r"^update .*Refuses: client 2, cycle 0, round 1: SystemExit: 0"):
        list(side_by_side(lanes, tasks(images, 5)))
