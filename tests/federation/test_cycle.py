"""The published semantics of rounds: what clients keep, what the server averages, who takes part."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from simulated import train_cycle

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import make_partition, open_store
from kafal_pipeline.data.pools import ClientPool, client_pools, initial_pool
from kafal_pipeline.federation.participants import participants
from kafal_pipeline.federation.site import Site
from kafal_pipeline.federation.workers import lane as lane_module
from kafal_pipeline.federation.workers import query_worker
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.query_worker import QueryTask
from kafal_pipeline.models.state import initial_state
from kafal_pipeline.update.base import Correction
from kafal_pipeline.update.fedavg import FedAvg


def run(images, config, pools, start, cycle=0, on_round=None):
    with Workers(images, config) as workers:
        return train_cycle(config, pools, start, cycle, workers, on_round)


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def spy(monkeypatch):
    """All calls of `local_steps`, as dictionaries of its keyword arguments and a few more."""
    calls = []
    original = lane_module.local_steps

    def local_steps(networks, update, pixels, samples, training, start, after_epoch):
        student, teacher, draws = networks.student, networks.teacher, start.draws
        states = [g.get_state().numpy().tobytes() for g in (draws.labelled, draws.unlabelled, draws.update)]
        received = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        result = yield from original(networks, update, pixels, samples, training, start, after_epoch)
        trained = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        calls.append({**vars(start), "teacher": teacher, "samples": samples, "received": received, "trained": trained,
                      "result": result, "states": states})  # fmt: skip
        return result

    monkeypatch.setattr(lane_module, "local_steps", local_steps)
    return calls


def clients_by_round(config, cycle=0):
    return [
        participants(range(4), config.federation, seed=config.seed, cycle=cycle, round_=round_)
        for round_ in range(config.federation.rounds)
    ]


def test_each_round_is_the_weighted_average_of_its_participants(images, make_config, pools, start, spy):
    sizes = {0: 6, 1: 3, 2: 5, 3: 1}
    pools = {k: dataclasses.replace(p, labelled=p.labelled[: sizes[k]], labels=p.labels[: sizes[k]])
             for k, p in pools.items()}  # fmt: skip
    config = make_config(update="fedavg")
    models = [start]
    run(images, config, pools, start, on_round=lambda state: models.append(state.global_state))
    calls = sorted(spy, key=lambda call: call["round"])
    for round_, chosen in enumerate(clients_by_round(config)):
        mine = [call for call in calls if call["round"] == round_]
        weights = [len(call["samples"].labelled) for call in mine]
        assert sorted(weights) == sorted(sizes[client] for client in chosen)
        for name, tensor in models[round_ + 1].items():
            if not tensor.is_floating_point():
                assert torch.equal(tensor, start[name])  # integer buffers are left alone
                continue
            mean = sum(w * call["trained"][name].double() for w, call in zip(weights, mine, strict=True)) / sum(weights)
            torch.testing.assert_close(tensor.double(), mean, rtol=1e-5, atol=1e-7, msg=name)
        for call in mine:
            assert equal(call["received"], models[round_])
    assert any("running_mean" in name and not torch.equal(t, start[name]) for name, t in models[-1].items())


def test_momentum_and_epochs_survive_rounds_and_restart_with_the_cycle(images, make_config, pools, start, spy):
    config = make_config(federation={"rounds": 5}, training={"local_epochs": 2})
    first = run(images, config, pools, start)
    kept = {}
    for round_, chosen in enumerate(clients_by_round(config)):
        mine = {int(call["samples"].labelled[0]): call for call in spy if call["round"] == round_}
        for client in chosen:
            call = mine[int(pools[client].labelled[0])]
            if client not in kept:
                assert call["momentum"] is None
                assert call["epochs"] == 0
            else:
                before = kept[client]["result"]
                assert call["epochs"] == before.epochs > 0
                assert all(torch.equal(call["momentum"][name], before.momentum[name]) for name in before.momentum)
            kept[client] = call
    spy.clear()
    run(images, config, pools, first.global_state, cycle=1)
    assert all(call["momentum"] is None and call["epochs"] == 0 for call in spy if call["round"] == 0)


def test_the_teacher_is_this_rounds_broadcast_and_absent_in_round_zero(images, make_config, pools, start, monkeypatch):
    seen = []
    original = lane_module.local_steps

    def local_steps(networks, update, pixels, samples, training, start, after_epoch):
        student, teacher = networks.student, networks.teacher
        same = None
        if teacher is not None:
            same = equal(dict(teacher.named_parameters()), dict(student.named_parameters()))
            assert not any(parameter.requires_grad for parameter in teacher.parameters())
        seen.append((start.round, same))
        return (yield from original(networks, update, pixels, samples, training, start, after_epoch))

    monkeypatch.setattr(lane_module, "local_steps", local_steps)
    run(images, make_config(), pools, start)
    assert {item for item in seen} == {(0, None), (1, True), (2, True)}


@pytest.mark.parametrize(("update", "expected"), [("kcfu", "initial_unlabelled"), ("kcfu_paper", "unlabelled")])
def test_unlabelled_batches_come_from_the_pool_asked_for(images, make_config, pools, start, spy, update, expected):
    later = {
        k: ClientPool(
            np.sort(np.append(p.labelled, p.unlabelled[:2])),
            np.append(p.labels, [0, 0]),
            p.unlabelled[2:],
            p.initial_unlabelled,
        )
        for k, p in pools.items()
    }
    run(images, make_config(update=update), later, start)
    for call in spy:
        (client,) = [k for k, p in later.items() if p.labelled[0] == call["samples"].labelled[0]]
        assert call["samples"].unlabelled.tolist() == getattr(later[client], expected).tolist()


def test_every_client_trains_with_its_own_counts_and_draws(images, make_config, pools, start, spy):
    config = make_config(federation={"participation": 1.0})
    run(images, config, pools, start)
    run(images, config, pools, start, cycle=1)
    for call in spy:
        assert call["samples"].label_counts.tolist() == torch.bincount(call["samples"].labels, minlength=3).tolist()
        assert call["samples"].labels.tolist() == images.train_labels[call["samples"].labelled.numpy()].tolist()
    assert len({state for call in spy for state in call["states"]}) == 3 * len(spy) == 3 * 24  # cycles, rounds, clients


def test_every_client_queries_with_its_own_draws_in_every_cycle(images, make_config, monkeypatch):
    seen = []
    original = query_worker.numpy_generator

    def numpy_generator(*key):
        generator = original(*key)
        seen.append(generator.bit_generator.state["state"]["state"])
        return generator

    monkeypatch.setattr(query_worker, "numpy_generator", numpy_generator)
    config = make_config(query="random")
    nothing = np.empty(0, dtype=np.int64)
    pool = ClientPool(nothing, nothing, np.arange(9), np.arange(9))
    with Workers(images, config) as workers:
        tasks = [QueryTask(Site(client, pool), cycle, 3, {}) for client in (0, 1) for cycle in (1, 2)]
        workers.map("select", tasks)
    assert len(set(seen)) == len(seen) == 4


def test_training_without_momentum(images, make_config, pools, start, spy):
    run(images, make_config(training={"momentum": 0.0}), pools, start)
    assert any(call["round"] > 0 and not call["momentum"] for call in spy)


def test_images_too_small_for_the_network_are_refused_before_training(images, make_config):
    tiny = dataclasses.replace(images, train_images=images.train_images[:, :4])
    with pytest.raises(UserError, match=r"4x6 pixels.*dataset\.image_size"):
        Workers(tiny, make_config())


def test_local_models_are_those_of_the_last_training_before_the_next_broadcast(images, make_config, pools, start, spy):
    config = make_config(federation={"all_clients_last_round": False, "rounds": 4})
    state = run(images, config, pools, start)
    last = {client: round_ for round_, chosen in enumerate(clients_by_round(config)) for client in chosen}
    assert state.downloaded == last
    for client, round_ in last.items():
        (call,) = [
            call for call in spy
            if call["round"] == round_ and call["samples"].labelled[0] == pools[client].labelled[0]
        ]  # fmt: skip
        assert equal(state.local_states[client], call["trained"])
        assert equal(state.broadcasts[round_], call["received"])
    assert set(state.broadcasts) == set(last.values())


def test_rows_tell_who_trained_when(images, make_config, pools, start):
    config = make_config(federation={"participation": 1.0})
    rows = run(images, config, pools, start, cycle=2).rows
    assert [(row["cycle"], row["round"], row["client"]) for row in rows] == [
        (2, r, k) for r in range(3) for k in range(4)
    ]
    assert [row["epochs"] for row in rows] == [r + 1 for r in range(3) for _ in range(4)]
    assert all(row["steps"] == 2 and np.isfinite(row["loss"]) for row in rows)
    assert all(row["bytes_up"] == row["bytes_down"] > 4 * 77_000 for row in rows)


def test_clients_without_labels_are_left_out(images, make_config, pools, start):
    nobody = np.empty(0, dtype=np.int64)
    pools = {**pools, 2: ClientPool(nobody, nobody, pools[2].unlabelled, pools[2].unlabelled)}
    state = run(images, make_config(federation={"participation": 1.0}), pools, start)
    assert set(state.local_states) == {0, 1, 3}
    everybody_empty = {k: ClientPool(nobody, nobody, p.unlabelled, p.unlabelled) for k, p in pools.items()}
    with pytest.raises(UserError, match=r"budget\.initial"):
        run(images, make_config(), everybody_empty, start)


def test_a_model_that_is_no_longer_finite_names_cycle_round_and_client(images, make_config, pools, start):
    with pytest.raises(UserError, match=r"cycle 0, round \d, client \d.*training\.lr"):
        run(images, make_config(training={"lr": 1e30}), pools, start)


def test_same_seed_same_bits_other_seed_other_bits(images, make_config, pools, start):
    first, second = (run(images, make_config(), pools, start) for _ in range(2))
    assert equal(first.global_state, second.global_state)
    other = run(images, make_config(seed=1), pools, start)
    assert not equal(first.global_state, other.global_state)


def test_initial_weights_depend_on_seed_and_cycle_alone():
    shape = {"in_channels": 1, "num_classes": 3}
    a, b = (initial_state("resnet8", **shape, seed=4, cycle=1) for _ in range(2))
    assert equal(a, b)
    for seed, cycle in ((5, 1), (4, 2)):
        assert not equal(a, initial_state("resnet8", **shape, seed=seed, cycle=cycle))


def test_bytes_count_what_scaffold_sends_beside_the_model(images, make_config, pools, start):
    config = make_config(update="scaffold", federation={"participation": 1.0})
    rows = run(images, config, pools, start).rows
    model = sum(tensor.nbytes for tensor in start.values())
    buffers = sum(t.nbytes for name, t in start.items() if "running" in name or "num_batches" in name)
    assert {row["bytes_up"] for row in rows} == {2 * model - buffers}
    down = {row["round"]: row["bytes_down"] for row in rows}
    assert down == {0: model, 1: 2 * model - buffers, 2: 2 * model - buffers}  # there are no controls in round 0


def test_scaffolds_control_stays_the_mean_of_the_clients(images, make_config, pools, start):
    """The identity of the algorithm, whoever takes part; clients that never did have control 0."""
    seen = []

    def check(state):
        for name, control in state.server.items():
            mean = sum(torch.as_tensor(c.kept[name]) for c in state.states.values() if c.kept) / len(pools)
            torch.testing.assert_close(control, mean, rtol=1e-4, atol=1e-6)
        seen.append(len([c for c in state.states.values() if c.kept]))

    config = make_config(
        update="scaffold", federation={"rounds": 5, "participation": 0.5, "all_clients_last_round": False}
    )
    state = run(images, config, pools, start, on_round=check)
    assert seen[0] == 2 < seen[-1]
    assert state.server.keys() == {name for name in start if "running" not in name and "num_batches" not in name}
    assert any(control.any() for control in state.server.values())
    assert run(images, config, pools, state.global_state, cycle=1).rows[0]["bytes_down"] == sum(
        tensor.nbytes for tensor in start.values()
    )  # a new cycle begins without controls


def test_local_batch_norms_stay_with_their_client_and_the_global_model_has_their_average(
    images, make_config, pools, start, spy
):
    config = make_config(update="fedavg", federation={"batch_norm": "local", "rounds": 4, "participation": 0.5})
    models = [start]
    state = run(images, config, pools, start, on_round=lambda state: models.append(state.global_state))
    local = {name for name in start if ".bn" in name or name.startswith("bn.")} - {
        name for name in start if "num_batches" in name
    }
    last = {}
    for call in sorted(spy, key=lambda call: call["round"]):
        client, broadcast = int(call["samples"].labelled[0]), models[call["round"]]
        for name, tensor in call["received"].items():
            expected = last[client][name] if name in local and client in last else broadcast[name]
            assert torch.equal(tensor, expected), name
        last[client] = call["trained"]
    final = [call for call in spy if call["round"] == 3]
    for name in local:
        weights = torch.tensor([float(len(call["samples"].labelled)) for call in final])
        mean = sum(w * call["trained"][name] for w, call in zip(weights, final, strict=True)) / weights.sum()
        torch.testing.assert_close(state.global_state[name], mean, rtol=1e-5, atol=1e-6)
    model, own = (sum(start[name].nbytes for name in names) for names in (start, local))
    first = {row["client"]: row["round"] for row in reversed(state.rows)}
    for row in state.rows:
        assert row["bytes_up"] == model
        assert row["bytes_down"] == model - (own if row["round"] > first[row["client"]] else 0)


def private(start):
    """The names of the parameters of batch norms."""
    return {name for name in start if (".bn" in name or name.startswith("bn.")) and name.endswith(("weight", "bias"))}


def test_scaffold_has_no_controls_of_batch_norms_that_stay_local(images, make_config, pools, start, spy):
    federation = {"batch_norm": "local", "participation": 1.0}
    states = []
    config = make_config(update="scaffold", federation=federation)
    state = run(images, config, pools, start, on_round=lambda state: states.append(dict(state.server)))
    own, parameters = private(start), spy[0]["result"].momentum.keys()
    assert own
    for control in (*states, *(client.kept for client in state.states.values())):
        assert set(control) == parameters - own
    assert any(control.any() for control in state.server.values())
    for call in spy:
        shift = call["correction"].shift if call["round"] else {}
        assert not any(shift[name].any() for name in own & shift.keys())
        assert call["round"] == 0 or any(shift[name].any() for name in parameters - own)
    model, controls = (sum(start[name].nbytes for name in names) for names in (start, parameters - own))
    statistics = sum(tensor.nbytes for name, tensor in start.items() if "running" in name)
    kept = statistics + sum(start[name].nbytes for name in own)
    assert {row["bytes_up"] for row in state.rows} == {model + controls}
    down = {row["round"]: row["bytes_down"] for row in state.rows}
    assert down == {0: model, 1: model + controls - kept, 2: model + controls - kept}


def test_no_update_shifts_batch_norms_that_stay_local(images, make_config, pools, start, monkeypatch):
    """An update of one's own need not know which parameters are a client's own."""

    def correction(self, client, server):
        return Correction(shift={name: torch.full_like(start[name], 1e3) for name in names})

    names = [name for name in start if name.endswith(("weight", "bias"))]
    monkeypatch.setattr(FedAvg, "correction", correction)
    training = {"lr": 1e-4, "momentum": 0.0}
    for batch_norm, expected in (("local", private(start)), ("averaged", set())):
        config = make_config(
            update="fedavg", federation={"batch_norm": batch_norm, "rounds": 1, "participation": 1.0}, training=training
        )
        state = run(images, config, pools, start)
        still = {
            name
            for name in names
            if all((m[name] - start[name]).abs().max() < 0.1 for m in state.local_states.values())
        }
        assert still == expected


def test_averaged_batch_norms_are_not_kept(images, make_config, pools, start):
    state = run(images, make_config(), pools, start)
    assert not any(client.batch_norm for client in state.states.values())


def test_momentum_can_restart_every_round(images, make_config, pools, start, spy):
    config = make_config(federation={"client_momentum": "reset", "participation": 1.0})
    run(images, config, pools, start)
    assert all(call["momentum"] is None and call["steps"] == 0 for call in spy)
    assert {call["epochs"] for call in spy} == {0, 1, 2}  # the learning rate still goes by the epochs
    spy.clear()
    run(images, make_config(federation={"participation": 1.0}), pools, start)
    assert {call["steps"] for call in spy} == {0, 2, 4}


def test_the_previous_model_is_the_clients_own_last_one(images, make_config, pools, start, monkeypatch):
    last, seen = {}, []
    original = lane_module.local_steps

    def local_steps(networks, update, pixels, samples, *args, **options):
        student, previous = networks.student, networks.previous
        client = int(samples.labelled[0])
        assert (previous is None) == (client not in last)
        if previous is not None:
            assert equal(last[client], previous.state_dict())
            seen.append(client)
        result = yield from original(networks, update, pixels, samples, *args, **options)
        if previous is not None:
            assert equal(dict(previous.named_parameters()), last[client])
        last[client] = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        return result

    monkeypatch.setattr(lane_module, "local_steps", local_steps)
    run(images, make_config(update="chase_alignment", federation={"rounds": 4}), pools, start)
    assert seen


def test_one_and_two_processes_give_the_same_bits_of_scaffold(tmp_path, make_config):
    digits = open_store(DatasetConfig(), tmp_path / "raw", tmp_path / "images")
    states = []
    for processes in (1, 2):
        config = make_config(
            update={"name": "scaffold", "loss": "focal"}, model={"name": "cnn4", "width": 8},
            partition={"min_size": 40}, federation={"rounds": 2, "participation": 0.75, "batch_norm": "local"},
            training={"processes": processes},
        )  # fmt: skip
        split = make_partition(digits.train_labels, config.partition, config.seed)
        mine = client_pools(initial_pool(split, digits.train_labels, config.budget, config.cycles, config.seed))
        begin = initial_state(config.model, in_channels=1, num_classes=10, seed=0, cycle=0, image_size=(8, 8))
        states.append(run(digits, config, mine, begin))
    one, two = states
    assert equal(one.global_state, two.global_state)
    assert one.server
    assert equal(one.server, two.server)
