"""What every update must do: a new line in the registry is tested by being there."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.common.registry import create
from kafal_pipeline.federation.workers import worker as worker_module
from kafal_pipeline.federation.workers.worker import Worker
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.network import initialise_convolutional
from kafal_pipeline.training.batches import labelled_batches, unlabelled_batches
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.base import ClientUpdate, StepView
from kafal_pipeline.update.kcfu import KCFU

WITH_STATE = {"scaffold"}
"""Updates that keep something of their own for a client."""


def make(name):
    return create("update", name, {}, UPDATES)


STEPWISE = [name for name in UPDATES if make(name).takes_steps()]
"""Updates that train by steps; the others have tests of their own."""


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def network(seed, dtype=torch.float64):
    """A plain network: contiguous, in double precision."""
    plain = build("resnet8", in_channels=1, num_classes=3).to(memory_format=torch.contiguous_format).to(dtype)
    initialise_convolutional(plain, torch.Generator().manual_seed(seed))
    return plain


def reference_loss(name, step, begin):
    """Return the loss of a step as the method's paper writes it; `begin` is the broadcast model."""
    update, student = make(name), step.student
    logits = student(step.images)
    if name == "ridge":
        return ((logits - torch.eye(3)[step.labels]) ** 2).sum(1).mean()
    if not name.startswith("kcfu"):
        assert name in {"fedavg", "fedprox", "scaffold", "fednova", "chase_alignment"}, (
            f"Write the loss of {name} here."
        )
        loss = -logits.log_softmax(1)[torch.arange(len(logits)), step.labels].mean()
        if name == "fedprox":
            there = dict(begin.named_parameters())
            loss = loss + 0.01 / 2 * sum(((p - there[n]) ** 2).sum() for n, p in student.named_parameters())
        if name == "chase_alignment" and step.previous is not None and step.unlabelled is not None:
            mine = student(step.unlabelled)
            theirs, old = step.teacher.eval()(step.unlabelled), step.previous.eval()(step.unlabelled)
            a, b = (F.cosine_similarity(mine, other.detach()) / 0.5 for other in (theirs, old))
            loss = loss - (a.exp() / (a.exp() + b.exp())).log().mean()
        return loss
    counts = step.label_counts.double()
    mass = logits.exp() * counts if update.balanced else logits.exp()
    loss = -(mass[torch.arange(len(logits)), step.labels] / mass.sum(1)).log().mean()
    if not update.compensatory or step.unlabelled is None:
        return loss
    beta, partner = update._mixing(step.unlabelled, step.generator)
    b = beta.to(step.unlabelled.dtype).view(-1, 1, 1, 1)
    mixed = b * step.unlabelled + (1 - b) * step.unlabelled[partner]
    if step.round == 0:
        with torch.no_grad():
            student(mixed)
        return loss
    teacher = step.teacher.train(update.teacher_bn == "batch")
    with torch.no_grad():
        targets = teacher(mixed).softmax(1)
        named = targets if update.weigh_by == "mixed" else teacher(step.unlabelled)
        weight = torch.where(counts > 0, 1 / counts, 0.0)
        weight = (weight / weight.sum())[named.argmax(1)]
        gamma = beta * weight + (1 - beta) * weight[partner]
    divergence = (targets * (targets.log() - student(mixed).log_softmax(1))).sum(1)
    if update.class_reduction == "mean":
        divergence = divergence / 3
    return loss + (gamma * divergence).mean()


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("round_", [0, 2])
def test_one_step_in_double_precision_is_the_plain_one(name, round_):
    """Loss and gradients of the update's own step, channels last, against the formula on contiguous tensors."""
    generator = torch.Generator().manual_seed(0)
    images, unlabelled = (torch.randn(n, 1, 6, 6, generator=generator, dtype=torch.float64) for n in (6, 5))
    nets = [network(seed) for seed in (1, 2, 3)]
    begin = nets[1]
    results = []
    for plain in (True, False):
        layout = torch.contiguous_format if plain else torch.channels_last
        student, teacher, previous = (copy.deepcopy(net).to(memory_format=layout) for net in nets)
        step = StepView(
            student.train(),
            teacher if make(name).uses_teacher(round_) else None,
            images.to(memory_format=layout),
            torch.tensor([0, 1, 0, 0, 1, 0]),
            unlabelled.to(memory_format=layout),
            torch.tensor([4, 2, 0]),
            round_,
            torch.Generator().manual_seed(5),
            previous if make(name).uses_previous() and round_ else None,
        )
        parameters = list(student.parameters())
        if plain:
            loss = reference_loss(name, step, begin)
            gradients = torch.autograd.grad(loss, parameters)
        else:
            loss = make(name).client_loss(step)
            gradients = list(torch.autograd.grad(loss, parameters))
            correction = make(name).correction({}, {})
            if correction is not None:  # fedprox: the term enters as its gradient, and the loss goes without it
                there = list(begin.parameters())
                gradients = [
                    g + correction.pull * (p - w) for g, p, w in zip(gradients, parameters, there, strict=True)
                ]
                loss = loss + correction.pull / 2 * sum(
                    ((p - w) ** 2).sum() for p, w in zip(parameters, there, strict=True)
                )
        results.append((loss.detach(), gradients, student.state_dict()))
    (loss, gradients, state), (other_loss, other_gradients, other_state) = results
    assert float(other_loss) == pytest.approx(float(loss), rel=1e-6)
    for expected, actual in zip(gradients, other_gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    for key in state:  # the same forwards in training mode, in the same order
        torch.testing.assert_close(other_state[key], state[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", STEPWISE)
def test_with_one_client_it_is_centralised_training(name, images, make_pools, train, monkeypatch):
    """Rounds, states and aggregation change nothing where there is nobody to differ from; all in double precision."""
    original = Pixels._normalise
    monkeypatch.setattr(Pixels, "_normalise", lambda self, images: original(self, images).double())
    monkeypatch.setattr(worker_module, "build", lambda *args, **options: build(*args, **options).double())
    pools, plain = make_pools([14]), network(0)
    start = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    config, _, done = train(pools, name, start=start)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    pixels = Pixels(images.train_images, [0.5], [0.25], torch.device("cpu"))
    pool, update, previous = pools[0], make(name), None
    counts = torch.bincount(torch.tensor(pool.labels), minlength=3)
    for round_ in range(2):
        draws = Draws.on(torch.device("cpu")).seed(config.seed, 0, round_, 0)
        begin = copy.deepcopy(plain).requires_grad_(False)
        plain.train()
        for _ in range(2):
            batches = labelled_batches(14, 4, "equal", draws.labelled)
            others = unlabelled_batches(len(pool.unlabelled), 4, draws.unlabelled)
            for batch in batches:
                other = next(others) if update.unlabelled_source() != "none" else None
                step = StepView(
                    plain,
                    copy.deepcopy(begin) if update.uses_teacher(round_) else None,
                    pixels.batch(torch.tensor(pool.labelled)[batch]).contiguous(),
                    torch.tensor(pool.labels)[batch],
                    None if other is None else pixels.batch(torch.tensor(pool.unlabelled)[other]).contiguous(),
                    counts,
                    round_,
                    draws.update,
                    previous if update.uses_previous() else None,
                )
                optimizer.zero_grad()
                reference_loss(name, step, begin).backward()
                optimizer.step()
        previous = copy.deepcopy(plain).requires_grad_(False)
    assert not torch.equal(done.global_state["head.weight"], start["head.weight"])
    for key, tensor in plain.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(done.global_state[key], tensor, rtol=1e-6, atol=1e-9)


@pytest.fixture
def watched(train, make_pools, monkeypatch):
    """Train with an update; return its augmented labelled images, and its mixing shares, in their order."""
    augment, mix = Pixels.augmented, KCFU._mixing
    labelled, shares = [], []

    def augmented(self, indices, *args):
        made = augment(self, indices, *args)
        if int(indices[0]) < 14:
            labelled.append(made.clone())
        return made

    def mixing(self, *args):
        drawn = mix(self, *args)
        shares.append(drawn[0])
        return drawn

    def run(update):
        labelled.clear()
        shares.clear()
        monkeypatch.setattr(Pixels, "augmented", augmented)
        monkeypatch.setattr(KCFU, "_mixing", mixing)
        train(make_pools([14]), update, training={"augmentation": {"flip": True, "crop_padding": 1}})
        return list(labelled), list(shares)

    return run


SWITCHED = [
    {"partner": "permutation"},
    {"weigh_by": "original"},
    {"teacher_bn": "running"},
    {"class_reduction": "sum"},
    {"balanced": False},
    {"compensatory": False},
]


@pytest.mark.parametrize(
    "update", [*sorted(set(STEPWISE) - {"kcfu"}), *({"name": "kcfu", **s} for s in SWITCHED)], ids=str
)
def test_all_updates_of_a_seed_train_on_the_same_labelled_batches(watched, update):
    expected, shares = watched("kcfu")
    images, other_shares = watched(update)
    assert len(images) == len(expected) == 16
    assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
    if other_shares:
        assert all(torch.equal(a, b) for a, b in zip(other_shares, shares, strict=True))


@pytest.mark.parametrize("name", STEPWISE)
def test_aggregation_of_equal_models_is_the_identity(name):
    model = {key: tensor.float() for key, tensor in network(1).state_dict().items()}
    other = {key: tensor.float() for key, tensor in network(2).state_dict().items()}
    parameters = frozenset(dict(network(1).named_parameters()))
    equals = [ClientUpdate(model, labels, 1.5, parameters) for labels in (3.0, 11.0, 1.0)]
    joined, server = make(name).aggregate(other, {}, equals, 5)
    assert server == {}
    for key, tensor in joined.items():
        torch.testing.assert_close(tensor, model[key] if "num_batches" not in key else other[key], rtol=1e-6, atol=0)
    unmoved = [ClientUpdate(model, labels, travel, parameters) for labels, travel in ((3.0, 0.5), (11.0, 2.0))]
    assert equal(make(name).aggregate(model, {}, unmoved, 5)[0], model)


@pytest.mark.parametrize("name", UPDATES)
def test_nobody_with_labels_leaves_the_global_model(name):
    model = {key: tensor.float() for key, tensor in network(1).state_dict().items()}
    nobody = [ClientUpdate({key: tensor + 1 for key, tensor in model.items()}, 0.0, 1.0, frozenset())]
    assert equal(make(name).aggregate(model, {}, nobody, 2)[0], model)


def same(first, second):
    """Compare arrays by name; nothing is no array."""
    first, second = first or {}, second or {}
    return first.keys() == second.keys() and all((first[key] == second[key]).all() for key in first)


@pytest.mark.parametrize("name", STEPWISE)
def test_what_a_client_keeps_survives_rounds_without_it_and_ends_with_the_cycle(name, make_pools, train, monkeypatch):
    seen = []
    original = Worker.train

    def spy(self, task):
        given = copy.deepcopy(task)  # what is kept may lie in the same memory
        result = original(self, task)
        seen.append((given, copy.deepcopy(result)))
        return result

    monkeypatch.setattr(Worker, "train", spy)
    options = {"federation": {"rounds": 4, "participation": 0.5}, "training": {"local_epochs": 1}}
    train(make_pools([6, 5, 7, 4]), name, model={"name": "cnn4", "width": 8}, cycles=2, **options)
    last, steps, waited = {}, Counter(), Counter()
    for task, result in sorted(seen, key=lambda item: (item[0].broadcast.cycle, item[0].broadcast.round)):
        cycle, round_, given, kept = task.broadcast.cycle, task.broadcast.round, task.site.state, result.site.state
        key = cycle, task.site.client
        earlier, before = last.get(key, (round_ - 1, None))
        assert same(given.kept, before and before.state.kept)
        assert same(given.momentum, before and before.state.momentum)
        assert same(task.site.model, before and make(name).uses_previous() and before.model)
        assert given.epochs == (before.state.epochs if before else 0) == kept.epochs - 1
        assert given.steps == steps[key]
        waited[cycle] += round_ - earlier > 1
        last[key] = round_, result.site
        steps[key] += result.steps
        # without these, the comparisons above would be of nothing with nothing
        assert result.steps > 0
        assert any(array.any() for array in kept.momentum.values())
        assert any(array.any() for array in kept.kept.values()) == (name in WITH_STATE)
        if name == "scaffold":  # what is handed over is also gone on from: a control moves by what is sent
            for parameter, control in kept.kept.items():
                np.testing.assert_allclose(control, given.kept.get(parameter, 0) + result.message[parameter], rtol=1e-5)
    assert min(waited[0], waited[1]) > 0


@pytest.mark.parametrize("name", UPDATES)
def test_runs_with_another_model_and_group_norm(name, make_pools, train):
    model = {"name": "cnn4", "width": 8, "normalisation": "group"}
    _, start, done = train(make_pools([6, 4]), name, model=model)
    assert all(torch.isfinite(tensor).all() for tensor in done.global_state.values())
    assert not torch.equal(done.global_state["head.weight"], start["head.weight"])


def test_fedprox_without_pull_is_fedavg_bit_for_bit(make_pools, train):
    pools = make_pools([6, 4, 9])
    plain = train(pools, "fedavg")[2].global_state
    assert equal(plain, train(pools, {"name": "fedprox", "mu": 0})[2].global_state)
    assert not equal(plain, train(pools, {"name": "fedprox", "mu": 0.5})[2].global_state)


def test_scaffold_is_fedavg_bit_for_bit_until_there_are_controls(make_pools, train):
    pools = make_pools([6, 4, 9])
    states = {name: [] for name in ("fedavg", "scaffold")}
    for name, models in states.items():
        train(pools, name, on_round=lambda state, models=models: models.append(state.global_state))
    assert equal(states["fedavg"][0], states["scaffold"][0])
    assert not equal(states["fedavg"][1], states["scaffold"][1])


def test_fednova_is_fedavg_where_all_take_as_many_steps(make_pools, train):
    plain, normalised = (train(make_pools([8, 8]), name)[2].global_state for name in ("fedavg", "fednova"))
    for key in plain:
        torch.testing.assert_close(normalised[key], plain[key], rtol=1e-4, atol=1e-6)
    plain, normalised = (train(make_pools([4, 12]), name)[2].global_state for name in ("fedavg", "fednova"))
    assert not torch.allclose(normalised["head.weight"], plain["head.weight"], rtol=1e-4, atol=1e-6)


def test_fednova_averages_batch_norms_that_stay_local(make_pools, train):
    """They did not begin as broadcast, so that there is no change of them to normalise."""
    options = {"federation": {"batch_norm": "local"}}
    mean, sent = {}, []

    def note(state):
        total = sum(len(pools[client].labelled) for client in pools)
        mean.update(
            {
                key: sum(len(pools[c].labelled) / total * state.local_states[c][key] for c in pools)
                for key in state.global_state
                if state.global_state[key].is_floating_point()
            }
        )
        sent.append(state.global_state)

    pools = make_pools([4, 12])
    train(pools, "fednova", on_round=note, **options)
    for key in ("bn.weight", "stage1.bn1.bias", "bn.running_mean"):
        torch.testing.assert_close(sent[-1][key], mean[key])
    assert not torch.allclose(sent[-1]["head.weight"], mean["head.weight"], rtol=1e-4, atol=1e-6)


def test_kcfu_takes_another_labelled_loss():
    step = StepView(
        network(0).train(), None, torch.randn(6, 1, 6, 6).double(), torch.tensor([0, 1, 0, 0, 1, 0]), None,
        torch.tensor([4, 2, 0]), 1, torch.Generator(),
    )  # fmt: skip
    losses = [float(KCFU(**options).client_loss(step).detach()) for options in ({}, {"balanced": False})]
    chosen = [create("update", "kcfu", {"loss": loss}, UPDATES) for loss in ("balanced_softmax", "ce")]
    assert [float(update.client_loss(step).detach()) for update in chosen] == pytest.approx(losses)
