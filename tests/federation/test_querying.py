"""Queries in the federation: two phases, memory, models trained for them, and watching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from simulated import joined, query_cycle, train_cycle

from kafal_pipeline.common.randomness import Purpose, torch_generator
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import make_partition, open_store
from kafal_pipeline.data.pools import client_pools, initial_pool
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.site import Site, Sites
from kafal_pipeline.federation.workers import query_models, query_worker
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_models import Distillation, QueryModelTrainer
from kafal_pipeline.federation.workers.query_worker import QueryTask
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.state import initial_state, size_in_bytes, to_arrays
from kafal_pipeline.update.base import StepView
from kafal_pipeline.update.fedavg import FedAvg


def trial(images, pools, start, config, memory=None):
    with Workers(images, config) as workers:
        state = train_cycle(config, pools, start, 0, workers)
        return state, query_cycle(config, pools, state, 1, workers, memory)


def test_queries_with_summaries_know_every_client(images, make_config, pools, start, monkeypatch):
    seen = {}
    original = query_worker.select

    def select(query, task, *rest):
        seen[task.site.client] = task
        return original(query, task, *rest)

    monkeypatch.setattr(query_worker, "select", select)
    state, results = trial(images, pools, start, make_config(query="ahfal"))
    told = {client: np.bincount(pool.labels, minlength=3).tolist() for client, pool in pools.items()}
    for task in seen.values():
        assert {client: s["label_counts"].tolist() for client, s in task.summaries.items()} == told
    assert results.bytes_up == 4 * 3 * 8
    assert results.bytes_down == 4 * size_in_bytes(state.global_state) + 4 * results.bytes_up


def test_queries_without_summaries_send_none(images, make_config, pools, start):
    state, results = trial(images, pools, start, make_config(query="margin"))
    assert (results.bytes_up, results.bytes_down) == (0, 4 * size_in_bytes(state.global_state))


def test_memory_returns_to_the_client_that_kept_it(images, make_config, pools, start):
    _, first = trial(images, pools, start, make_config(query="fairfal"))
    kept = {client: dict(selection.memory) for client, selection in first.selections.items()}
    assert len({memory["suits_global"].item() for memory in kept.values()}) == len(pools)
    changed = {client: {"suits_global": np.array([0.1 * client])} for client in pools}
    _, second = trial(images, pools, start, make_config(query="fairfal"), changed)
    for client, selection in second.selections.items():
        assert selection.memory["suits_global"].tolist() == [0.1 * client]


@pytest.mark.parametrize("query", ["probcover", "fairfal"])
def test_a_client_with_nothing_left_chooses_nothing_and_keeps_its_memory(images, make_config, pools, start, query):
    pools = {**pools, 2: replace(pools[2], unlabelled=pools[2].unlabelled[:0])}
    memory = {2: {"suits_global": np.array([0.5])}}
    _, results = trial(images, pools, start, make_config(query=query), memory)
    nothing = results.selections[2]
    assert (nothing.samples.dtype, nothing.samples.shape, nothing.scores.shape) == (np.int64, (0,), (0,))
    assert nothing.memory["suits_global"].tolist() == [0.5]
    assert all(len(results.selections[client].samples) == 4 for client in (0, 1, 3))


def drawn(generator):
    """Return weights as they are drawn for the tiny images."""
    return build("resnet8", in_channels=1, num_classes=3, image_size=(6, 6), generator=generator).state_dict()


def equal(first, second, names=None):
    return all(torch.equal(first[name], second[name]) for name in names or first.keys() | second.keys())


@pytest.fixture
def trained(images, make_config, pools, start):
    """A function that returns the states of query models that a worker trained."""

    def train(kinds, client=1, cycle=2, **changes):
        config = make_config(query="random", **changes)
        model = to_arrays(drawn(torch.Generator().manual_seed(5)))
        task = QueryTask(Site(client, pools[client], model=model), cycle, 3, to_arrays(start))
        with Workers(images, config) as workers:
            models = workers._local._models(task)
            for kind in kinds:
                models.forward(kind, pools[client].unlabelled)
            return {kind: models.states[kind] for kind in kinds}, models.used

    return train


def test_models_for_queries_do_not_depend_on_what_came_before(trained):
    forwards, used = trained(["local_only", "finetuned", "distilled"])
    backwards, _ = trained(["distilled", "finetuned", "local_only"])
    for kind, state in forwards.items():
        assert all((state[name] == backwards[kind][name]).all() for name in state)
    assert used == {"local_only", "finetuned", "distilled", "global"}
    weights = [forwards[kind]["head.weight"] for kind in forwards]
    assert not any((a == b).all() for a, b in zip(weights, [*weights[1:], weights[0]], strict=True))
    assert not (trained(["local_only"], client=2)[0]["local_only"]["head.weight"] == weights[0]).all()
    assert not (trained(["local_only"], cycle=1)[0]["local_only"]["head.weight"] == weights[0]).all()


@pytest.fixture
def begun(trained, monkeypatch):
    """A function that returns what the training of a query model of client 1 for cycle 2 begins with."""
    original, seen = query_models.train_locally, []

    def copied(network):
        return None if network is None else {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def train_locally(networks, update, pixels, samples, *rest):
        seen.append((copied(networks.student), copied(networks.teacher), update, samples))
        return original(networks, update, pixels, samples, *rest)

    def begin(kind, **changes):
        monkeypatch.setattr(query_models, "train_locally", train_locally)
        seen.clear()
        trained([kind], **changes)
        (only,) = seen
        return only

    return begin


def own_draw(kind):
    """Return the weights that a query model draws, by its generator's key."""
    which = {"local_only": 0, "distilled": 4}[kind]
    return drawn(torch_generator(0, Purpose.QUERY_MODEL, 2, which, 1))


@pytest.mark.parametrize("kind", ["local_only", "finetuned", "distilled"])
def test_what_models_for_queries_begin_with(begun, start, pools, kind):
    student, teacher, update, samples = begun(kind)
    assert equal(student, start if kind == "finetuned" else own_draw(kind))
    assert (teacher is not None) == (kind == "distilled")
    assert teacher is None or equal(teacher, start)
    assert update == (Distillation() if kind == "distilled" else FedAvg())
    assert samples.labelled.tolist() == pools[1].labelled.tolist()
    assert samples.labels.tolist() == pools[1].labels.tolist()
    assert len(samples.unlabelled) == 0


@pytest.mark.parametrize("head", ["theirs", "none"])
@pytest.mark.parametrize("kind", ["local_only", "finetuned", "distilled"])
def test_models_for_queries_begin_as_the_federation_does_with_pretrained_weights(begun, start, tmp_path, kind, head):
    theirs = drawn(torch.Generator().manual_seed(9))
    left = {name for name in theirs if head == "none" and name.startswith("head.")}
    save_file(
        {name: t.contiguous() for name, t in theirs.items() if name not in left}, tmp_path / "weights.safetensors"
    )
    student, teacher, *_ = begun(kind, model={"pretrained": str(tmp_path / "weights.safetensors")})
    if kind == "finetuned":
        assert equal(student, start)
        return
    assert equal(student, theirs, theirs.keys() - left)
    assert not left or equal(student, own_draw(kind), left)
    assert teacher is None or equal(teacher, start)


@pytest.mark.parametrize("kind", ["local_only", "finetuned"])
def test_models_for_queries_learn_their_labels(images, trained, pools, make_config, start, kind):
    states, used = trained([kind], query_training={"epochs": 30})
    assert used == {"local_only": {"local_only"}, "finetuned": {"finetuned", "global"}}[kind]
    assert not (states[kind]["head.weight"] == start["head.weight"].numpy()).any()
    with Workers(images, make_config(query="random")) as workers:
        task = QueryTask(Site(1, pools[1]), 1, 3, {}, states)
        logits = workers._local._models(task).forward(kind, pools[1].labelled).logits
    assert (logits.argmax(dim=1).numpy() == pools[1].labels).mean() > 0.8


def test_a_query_asks_the_finetuned_model(images, make_config, pools, start):
    config = make_config(query={"name": "margin", "model": "finetuned"})
    state, results = trial(images, pools, start, config)
    assert results.bytes_down == 4 * size_in_bytes(state.global_state)
    _, others = trial(images, pools, start, make_config(query={"name": "margin", "model": "global"}))
    for client, selection in results.selections.items():
        assert selection.scores.tolist() != others.selections[client].scores.tolist()


def test_epochs_and_rate_of_query_models(make_config):
    def training(**changes):
        return QueryModelTrainer(make_config(**changes), None, 3, None).training

    assert training().local_epochs == 3
    assert training(federation={"rounds": 1000}).local_epochs == 100
    assert training(query_training={"epochs": 7, "lr": 0.3}, training={"lr_drop_epoch": 2}).lr == 0.3
    assert training(query_training={"epochs": 7}, training={"lr_drop_epoch": 2}).lr_drop_epoch is None


def test_distillation_loss_is_that_of_the_paper():
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.nn.Linear(3, 4).double() for _ in range(2))
    images, labels = torch.randn(5, 3, generator=rng, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    step = StepView(student, teacher, images, labels, None, torch.zeros(4), 0, rng)
    loss = 0.0
    for x, y in zip(images, labels, strict=True):
        z, t = student(x), teacher(x)
        soft, target = (z / 4).softmax(0), (t / 4).softmax(0)
        loss += 0.1 * -z.log_softmax(0)[y] + 0.9 * 16 * (target * (target.log() - soft.log())).sum()
    assert Distillation().client_loss(step).item() == pytest.approx(loss.item() / 5, rel=1e-9)


def test_watching_counts_changes_between_epochs_and_leaves_training_alone(images, make_config, pools, start):
    options = {"training": {"local_epochs": 2}, "federation": {"rounds": 4, "participation": 1.0}}
    plain, _ = trial(images, pools, start, make_config(query="random", **options))
    state, results = trial(images, pools, start, make_config(query="chase", **options))
    assert plain.watched == {}
    for name, tensor in plain.global_state.items():
        assert torch.equal(tensor, state.global_state[name])
    for client, pool in pools.items():
        watched = state.watched[client]
        assert watched["samples"].tolist() == pool.unlabelled.tolist()  # fewer than 500
        assert (watched["predicted"] >= 0).all()
        assert watched["changes"].max() <= 4 * 2 - 1
        changes = dict(zip(watched["samples"].tolist(), watched["changes"].tolist(), strict=True))
        selection = results.selections[client]
        assert selection.scores.tolist() == [changes[sample] for sample in selection.samples.tolist()]
        assert selection.scores.min() >= sorted(changes.values(), reverse=True)[3]
    assert sum(watched["changes"].sum() for watched in state.watched.values()) > 0


def test_a_watched_change_is_a_change_of_the_predicted_class(images, make_config, pools, start, monkeypatch):
    from kafal_pipeline.federation.workers import watching

    seen = []
    original = watching.predictions

    def predictions(*args):
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(watching, "predictions", predictions)
    query = {"name": "chase", "watched_samples": 5}
    config = make_config(query=query, training={"local_epochs": 3}, federation={"rounds": 1, "participation": 0.25})
    state, _ = trial(images, pools, start, config)
    assert len(seen) == 3 * len(pools)
    for client in pools:
        first, second, third = seen[3 * client : 3 * client + 3]
        assert state.watched[client]["changes"].tolist() == ((first != second) * 1 + (second != third)).tolist()


@pytest.mark.parametrize("query", ["fairfal", "ifal", "chase"])
def test_one_and_two_processes_choose_the_same(tmp_path, make_config, query):
    digits = open_store(DatasetConfig(), tmp_path / "raw", tmp_path / "images")
    options = {"partition": {"clients": 2, "min_size": 40}, "federation": {"rounds": 1, "participation": 1.0}}
    config = make_config(query=query, **options, budget={"initial": 20, "per_cycle": 8})
    split = make_partition(digits.train_labels, config.partition, config.seed)
    pools = client_pools(initial_pool(split, digits.train_labels, config.budget, config.cycles, config.seed))
    start = initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0)
    one, two = (
        trial(
            digits,
            pools,
            start,
            make_config(query=query, **options, budget={"initial": 20, "per_cycle": 8}, training={"processes": n}),
        )[1]
        for n in (1, 2)
    )
    for client, selection in one.selections.items():
        assert selection.samples.tolist() == two.selections[client].samples.tolist()
        assert selection.scores.tolist() == two.selections[client].scores.tolist()


def test_who_is_waited_for_is_reported(images, make_config, pools, start):
    seen, config = [], make_config(query="random")
    with Workers(images, config) as workers:
        trained = joined(CycleState(0, 0, start), Sites())
        query_cycle(config, pools, trained, 1, workers, on_wait=lambda clients: seen.append(list(clients)))
    assert seen == [[0], [], [1], [], [2], [], [3], []]
