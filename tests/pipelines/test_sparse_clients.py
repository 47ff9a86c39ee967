"""Clients with next to nothing: no labels, one, only one class, nothing left to query. Through the nodes, in memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.data import ImageData
from kafal_pipeline.evaluation import learning_curve
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.query.names import QUERIES
from kafal_pipeline.update.names import UPDATES

BATCH, BUDGET, CYCLES = 4, 2, 3
SMALL = {"name": "cnn4", "width": 4}
# By client, labelled and unlabelled samples.
SIZES = {
    "no labels": (0, 9),
    "one label": (1, 8),
    "one class": (5, 5),
    "no pool": (6, 0),
    "short pool": (4, 3),
    "a pair": (1, 1),
}
NO_LABELS, ONE_LABEL, ONE_CLASS, NO_POOL, SHORT_POOL, PAIR = range(len(SIZES))

PIXEL = """
import torch
from torch import nn
from kafal_pipeline.models.network import initialise_convolutional

class Pixel(nn.Module):
    '''Its batch norms see a single pixel of each image, and one of them no map at all.'''

    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, 4, 6, bias=False)
        self.norm, self.flat = nn.BatchNorm2d(4), nn.BatchNorm1d(4)
        self.head = nn.Linear(4, num_classes)

    def features(self, images):
        return self.flat(torch.relu(self.norm(self.convolution(images))).flatten(1))

    def forward(self, images):
        return self.head(self.features(images))

    def initialise(self, generator):
        initialise_convolutional(self, generator)
"""


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pixels = (rng.integers(0, 90, (90, 6, 6, 1)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    names = ("dark", "grey", "light")
    return ImageData("tiny", pixels, labels, pixels[60:], labels[60:], names, np.array([0.5]), np.array([0.25]))


@pytest.fixture
def pool(images):
    rows, free = [], list(range(60))
    for client, (labelled, unlabelled) in enumerate(SIZES.values()):
        mine = [s for s in free if client != ONE_CLASS or images.train_labels[s] == 1][: labelled + unlabelled]
        free = [sample for sample in free if sample not in mine]
        known = set(mine[:labelled])
        rows += [
            (client, s, int(images.train_labels[s]) if s in known else -1, 0 if s in known else -1)
            for s in sorted(mine)
        ]
    return pd.DataFrame(rows, columns=["client", "sample", "label", "labelled_in_cycle"])


@pytest.fixture
def resources():
    held = Resources()
    yield held
    held.close()


def parameters(query="random", update="fedavg", model=SMALL, **changes):
    return {
        "cycles": CYCLES,
        "query": query,
        "update": update,
        "model": model,
        "partition": {"clients": len(SIZES)},
        "budget": {"initial": 1, "per_cycle": BUDGET},
        "federation": {"rounds": 2, "participation": 1.0, **changes.pop("federation", {})},
        "training": {"local_epochs": 1, "batch_size": BATCH, "processes": 1, **changes.pop("training", {})},
        "query_training": {"epochs": 1},
    }


def run(resources, images, pool, values):
    """Do a trial as the pipeline does; return the pools, tables of rounds and metrics of its cycles."""
    pools, tables, metrics, trained, memory = [], [], [], None, None
    for cycle in range(CYCLES):
        queried = cost = None
        if trained is not None:
            kept = () if memory is None else (memory,)
            queried, cost, memory = nodes.query(resources, cycle, pool, *trained, images, values, *kept)
            pool = nodes.annotate_queried(cycle, pool, queried, images, values)
        model, local, rounds, seconds = nodes.train(
            resources, cycle, pool, images, values, trained[0] if trained else None
        )
        metrics.append(nodes.evaluate(resources, cycle, model, pool, rounds, seconds, images, values, cost))
        trained = (model, local, rounds)
        pools.append(pool)
        tables.append(rounds)
        assert all(tensor.isfinite().all() for tensor in model.values() if tensor.is_floating_point())
    return pools, tables, metrics


def check(pools, tables, metrics):
    """Every client with a label trains, every client with a pool gets its budget, and the measures are measures."""
    for before, after, table in zip(pools, pools[1:], tables[1:], strict=False):
        for client in range(len(SIZES)):
            left, asked = ((p["client"] == client) & (p["labelled_in_cycle"] == -1) for p in (before, after))
            assert left.sum() - asked.sum() == min(BUDGET, left.sum()), client
            known = ((after["client"] == client) & (after["label"] >= 0)).sum()
            assert (client in set(table["client"])) == (known > 0)
    assert set(tables[0]["client"]) == {ONE_LABEL, ONE_CLASS, NO_POOL, SHORT_POOL, PAIR}
    assert np.isfinite(pd.concat(tables)["loss"]).all()
    curve = learning_curve(metrics)
    assert curve["labels"].is_monotonic_increasing
    assert curve["accuracy"].between(0, 1).all()


@pytest.mark.parametrize("query", sorted(QUERIES))
def test_every_query(resources, images, pool, query):
    check(*run(resources, images, pool, parameters(query, federation={"rounds": 1})))


@pytest.mark.parametrize("update", sorted(UPDATES))
def test_every_update_with_a_batch_norm_of_a_single_pixel(resources, images, pool, update, tmp_path, monkeypatch):
    (tmp_path / "pixel_network.py").write_text(PIXEL)
    monkeypatch.syspath_prepend(tmp_path)
    values = parameters("ksas", update, "pixel_network.Pixel", training={"batches": "published"})
    check(*run(resources, images, pool, values))


@pytest.mark.parametrize("update", sorted(UPDATES))
def test_every_update_with_local_batch_norms(resources, images, pool, update):
    check(*run(resources, images, pool, parameters("badge", update, federation={"batch_norm": "local"})))


@pytest.mark.parametrize("query", sorted(QUERIES))
def test_a_query_where_nobody_has_anything_left(resources, images, pool, query):
    """The trial continues without new labels."""
    pool = pool[pool["label"] >= 0].reset_index(drop=True)
    values = parameters(query)
    trained = nodes.train(resources, 0, pool, images, values)[:3]
    queried, cost, memory = nodes.query(resources, 1, pool, *trained, images, values)
    assert queried.empty
    after = nodes.annotate_queried(1, pool, queried, images, values)
    pd.testing.assert_frame_equal(after, pool)
    model, _, rounds, seconds = nodes.train(resources, 1, after, images, values, trained[0])
    measures = nodes.evaluate(resources, 1, model, after, rounds, seconds, images, values, cost)
    assert sum(measures["queried_histogram"]) == 0
    learning_curve([measures])


def test_skipped_clients_are_counted_and_do_not_stand_for_a_model(resources, images, pool, monkeypatch):
    """The clients' models that queries see are those before the failure, also when read back from the table."""
    from kafal_pipeline.federation.workers.lane import Lane

    original = Lane.train

    def train(self, task):
        result = yield from original(self, task)
        client = task.site.client
        if client == NO_POOL or (client == ONE_CLASS and task.broadcast.round == 1):
            result.model["head.weight"][:] = np.nan
        return result

    monkeypatch.setattr(Lane, "train", train)
    values = parameters("ksas", federation={"on_client_failure": "skip"})
    _, tables, metrics = run(resources, images, pool, values)
    assert [row["skipped_client_rounds"] for row in metrics] == [3] * CYCLES
    trained = nodes._sites({}, tables[0], {}, lambda state, _: state)
    assert NO_POOL not in trained.downloaded
    assert (trained.downloaded[ONE_CLASS], trained.downloaded[SHORT_POOL]) == (0, 1)
