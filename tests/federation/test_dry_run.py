"""What is wrong with a user's own class shows in a dry run; what is right begins."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from simulated import query_cycle, train_cycle

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import open_store
from kafal_pipeline.federation import dry_run as module
from kafal_pipeline.federation.dry_run import dry_run
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state

HEAD = """
import itertools, os, random, sys, time
from dataclasses import dataclass, field
import numpy as np, torch
from torch.nn import functional as F
from kafal_pipeline.models.cnn4 import CNN4
from kafal_pipeline.query.base import ScoreQuery, Selection
from kafal_pipeline.update.base import Correction, Update
counter = itertools.count()

@dataclass(frozen=True)
class Query(ScoreQuery):
    def scores(self, pool, rng):
        return {scores}
    {query}

class Model(CNN4):
    def features(self, images):
        return {features}

@dataclass(frozen=True)
class Own(Update):
    def client_loss(self, step):
        return {loss}
    {update}
"""
LOSS = "F.cross_entropy(step.student(step.images), step.labels)"

QUERIES = [
    ({"scores": "sys.exit(0)"}, "client 0, cycle 1: SystemExit: 0"),
    ({"scores": "rng.random(3)"}, "client 0, cycle 1: the scores are ndarray of float64 of shape (3,)"),
    ({"query": "def select(self, pool, budget): return None"}, "client 0, cycle 1: TypeError: "),
    (
        {"query": "def select(self, pool, budget, rng): return pool.samples[:budget]"},
        "`select` returned ndarray of int64",
    ),
    (
        {"query": "def summary(self, pool): return {'a': [1]}"},
        "client 0, cycle 1: the summary has an object of type list",
    ),
    ({"query": "def summary(self): return {}"}, "client 0, cycle 1: TypeError"),
    (
        {
            "scores": "rng.random(len(pool)) + next(counter)",
            "query": "def select(self, pool, budget, rng): "
            "return Selection(rng.permutation(np.roll(pool.samples, next(counter)))[:budget], None)",
        },
        "another choice the second",
    ),
    (
        {"scores": "pool.summaries[0]['a'].sort()", "query": "def summary(self, pool): return {'a': np.arange(3)}"},
        "read-only",
    ),
    ({"scores": "rng.shuffle(pool.samples)"}, "client 0, cycle 1: ValueError: array is read-only"),
    (
        {"scores": "pool.probabilities('globl').amax(1).numpy()"},
        "client 0, cycle 1: the pool was asked for the model 'globl'. Did you mean 'global'? Allowed: distilled, ",
    ),
    ({"scores": "pool.labelled.sort()"}, "client 0, cycle 1: ValueError: sort array is read-only"),
    ({"query": "watched_samples = -1"}, "`watched_samples` is -1"),
]
UPDATES = [
    (
        {"loss": LOSS.replace("labels)", "labels, reduction='none')")},
        "client 0, cycle 0, round 0: the loss is Tensor of torch",
    ),
    ({"loss": "1.0"}, "the loss is an object of type float; allowed: a scalar"),
    ({"loss": "None"}, "the loss is None"),
    ({"loss": "step.labels.sum()"}, "the loss is Tensor of torch.int64"),
    ({"loss": f"torch.set_grad_enabled(False) and None or {LOSS}"}, "switched gradients off"),
    ({"loss": f"{LOSS}.detach()"}, "client 0, cycle 0, round 0: the loss has no gradient: it was computed without"),
    ({"loss": "torch.ones(1, requires_grad=True).sum()"}, "no gradient for any parameter of the student"),
    ({"loss": f"{LOSS} + next(counter)"}, None),
    ({"loss": f"{LOSS} * (1 + next(counter))"}, "the same training gave another model the second time"),
    ({"loss": f"{LOSS} * float('nan')"}, "dry run of update own_strategies.Own: cycle 0, round 0, client 0: the model"),
    ({"update": "def loss_terms(self, step): return iter(())"}, "no gradient for any parameter of the student"),
    (
        {"update": "def unlabelled_source(self): return 'all'"},
        "client 0, cycle 0, round 0: `unlabelled_source` returned 'all'",
    ),
    ({"update": "def correction(self, client, server): return 0.1"}, "`correction` returned an object of type float"),
    ({"update": "def correction(self, client, server): return Correction(shift={})"}, "lacks 'convolutions.0.weight'"),
    ({"update": "def finish(self, outcome): return {}"}, "`finish` returned an object of type dict; allowed: a pair"),
    (
        {"update": "def finish(self, outcome): return {}, {'a': 1}"},
        "its message, from `finish`, has an object of type int",
    ),
    ({"update": "def aggregate(self, *args): return None"}, "cycle 0, round 0, all clients: `aggregate` returned None"),
    (
        {"update": "def aggregate(self, model, *args): return {}, {}"},
        "lacks 'convolutions.0.weight', a tensor of shape (64,",
    ),
    (
        {"update": "def aggregate(self, m, *args): return {**m, 'a': m['head.bias']}, {}"},
        "has 'a', which the global model",
    ),
    ({"update": "def aggregate(self, m, *args): return {**m, 'head.bias': m['head.bias'][:1]}, {}"}, "of shape (1,)"),
    (
        {"update": "def aggregate(self, m, *args): return {**m, 'head.bias': m['head.bias'].double()}, {}"},
        "torch.float64",
    ),
    (
        {"update": "def aggregate(self, m, *args): return {**m, 'head.bias': m['head.bias'] / 0}, {}"},
        "own_strategies.Own aggr",
    ),
    ({"update": "def aggregate(self, model): return model"}, "cycle 0, round 0, all clients: TypeError"),
]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes the module of a user's own query and update."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(scores="rng.random(len(pool))", query="", loss=LOSS, update="", features="super().features(images)"):
        sys.modules.pop("own_strategies", None)
        text = HEAD.replace("{scores}", scores).replace("{query}", query).replace("{features}", features)
        (tmp_path / "own_strategies.py").write_text(text.replace("{loss}", loss).replace("{update}", update))

    yield make
    sys.modules.pop("own_strategies", None)


@pytest.fixture
def begin(images, make_config, write):
    def run(kind, **parts):
        write(**parts)
        config = make_config(**{kind: f"own_strategies.{ {'query': 'Query', 'update': 'Own'}[kind] }"}, model="cnn4")
        dry_run(config, images)

    return run


@pytest.mark.parametrize(
    ("kind", "parts", "message"), [*(("query", *case) for case in QUERIES), *(("update", *case) for case in UPDATES)]
)
def test_a_class_with_a_fault_is_refused(begin, kind, parts, message):
    if message is None:  # no fault: adding a number to the loss changes no gradient
        begin(kind, **parts)
        return
    with pytest.raises(UserError, match=r"^dry run") as raised:
        begin(kind, **parts)
    assert f"{kind} own_strategies." in str(raised.value) or "own_strategies.Own aggr" in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("scores", ["np.random.rand(len(pool))", "torch.rand(len(pool)).numpy()"])
def test_what_draws_from_a_global_generator_draws_the_same_again(begin, scores):
    begin("query", scores=scores)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("F.dropout(super().features(images), training=self.training)", None),
        ("super().features(images)[:, :5]", "model own_strategies.Model: one forward: RuntimeError: "),
        ("F.dropout(super().features(images))", "gave other logits the second time"),
        (
            "super().features(images)\n    def initialise(self, generator): pass",
            "one forward: `initialise` gave other weights",
        ),
        ("super().features(images) * (1 if len(images) == 4 else [])", "client 0, cycle 1: TypeError"),
    ],
)
def test_a_model_of_ones_own_is_tried(images, make_config, write, features, message):
    write(features=features)
    config = make_config(model="own_strategies.Model")
    if message is None:
        dry_run(config, images)
        return
    with pytest.raises(UserError, match=r"^dry run: model own_strategies\.Model: ") as raised:
        dry_run(config, images)
    assert message in str(raised.value)


def test_images_without_labels_are_tried_too(images, make_config, write):
    write()
    unlabelled = replace(images, train_labels=np.full_like(images.train_labels, -1))
    dry_run(make_config(update="own_strategies.Own", query="own_strategies.Query", model="cnn4"), unlabelled)


def test_a_query_that_changes_how_others_compute_is_refused(images, make_config, write, monkeypatch):
    write()
    counter, original = itertools.count(1), module.train_cycle

    def train(*args):
        trained = original(*args)
        factor = next(counter)
        return replace(trained, global_state={k: v * factor for k, v in trained.global_state.items()})

    monkeypatch.setattr(module, "train_cycle", train)
    with pytest.raises(UserError, match=r"^dry run: query own_strategies\.Query: all clients: the same training gave"):
        dry_run(make_config(query="own_strategies.Query", model="cnn4"), images)


def test_this_packages_own_are_not_tried(images, make_config, monkeypatch):
    monkeypatch.setattr(module, "_try_out", None)
    dry_run(make_config(query="ksas", update="kcfu"), images)


def test_the_score_of_a_composition_is_tried(images, make_config, write):
    write(scores="sys.exit(0)")
    config = make_config(query={"score": "own_strategies.Query", "diversity": "k_centre"}, model="cnn4")
    with pytest.raises(UserError, match=r"^dry run: query own_strategies\.Query: client 0, cycle 1: SystemExit"):
        dry_run(config, images)


def test_in_the_run_client_and_cycle_are_named(images, make_config, pools, write):
    """What only shows there is refused as well."""
    write(scores="1 / (pool.client != 2) * rng.random(len(pool))", loss=f"{LOSS} * (1 // (len(step.labels) - 3))")
    shape = {"in_channels": 1, "num_classes": 3, "seed": 0, "cycle": 0, "image_size": (6, 6)}
    config = make_config(query="own_strategies.Query", model="cnn4")
    with Workers(images, config) as workers:
        trained = train_cycle(config, pools, initial_state(config.model, **shape), 0, workers)
        with pytest.raises(UserError, match=r"^query own_strategies\.Query: client 2, cycle 1: ZeroDivisionError"):
            query_cycle(config, pools, trained, 1, workers)
    config = make_config(update="own_strategies.Own", model="cnn4")
    message = r"^update own_strategies\.Own: client \d, cycle 0, round 0: ZeroDivision"
    with Workers(images, config) as workers, pytest.raises(UserError, match=message):
        train_cycle(config, pools, initial_state(config.model, **shape), 0, workers)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return open_store(DatasetConfig(), folder / "raw", folder / "images")


def test_what_ends_its_process_is_refused(digits, make_config, write, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 300)  # a busy machine takes long to start a process
    write(scores="os._exit(0)")
    with pytest.raises(UserError, match=r"dry run: query own_strategies\.Query: it ended the process"):
        dry_run(make_config(query="own_strategies.Query", model="cnn4"), digits)


def test_what_does_not_end_is_left(digits, make_config, write, monkeypatch, caplog):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    write(scores="time.sleep(1000)")
    before, begin = set(psutil.Process().children(recursive=True)), time.monotonic()
    with caplog.at_level(logging.WARNING):
        dry_run(make_config(query="own_strategies.Query", model="cnn4"), digits)
    assert caplog.messages == ["query own_strategies.Query: a dry run did not end in 0.1 s; the run begins without it."]
    assert time.monotonic() - begin < 30
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [child for child in left if "spawn_main" in " ".join(child.cmdline())]
