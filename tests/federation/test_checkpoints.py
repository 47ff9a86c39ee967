"""Training that resumes from a checkpoint ends with the same bits as training that was never interrupted."""

from __future__ import annotations

import errno
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from simulated import train_cycle

from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.federation.between_rounds.client_states import to_record
from kafal_pipeline.federation.between_rounds.cycle_state import begin, save
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.workers.pool import Workers

ROUNDS = 5


class Killed(BaseException):
    pass


@pytest.fixture
def train(images, make_config, pools, start, tmp_path):
    """Train in `tmp_path`, with checkpoints unless ``keep=False``, and stop after a round if asked."""

    def train(until=ROUNDS, keep=True, owner="me", every=0.0, on_round=lambda _: None, **changes):
        config = make_config(**{"federation": {"rounds": ROUNDS}, **changes})
        store = Store(tmp_path / "checkpoint", owner, every) if keep else None
        begun = []

        def after(state):
            on_round(state)
            begun.append(state.round)
            if state.round == until < ROUNDS:
                store.wait()
                raise Killed

        with Workers(images, config) as workers:
            try:
                done = train_cycle(config, pools, start, 0, workers, after, store)
            except Killed:
                return None, begun
        return done, begun

    return train


def resumed(folder):
    """Return the state that a run would train on with."""
    state, _ = begin(Store(folder, "me"), range(9), {}, 0)
    return state


def everything(state):
    """All that a cycle leaves behind, as plain values and bytes; seconds aside."""

    def raw(arrays):
        return {name: np.asarray(array).tobytes() for name, array in arrays.items()}

    return {
        "global": raw(state.global_state),
        "server": raw(state.server),
        "local": {client: raw(state.local_states[client]) for client in sorted(state.local_states)},
        "broadcasts": {round_: raw(state.broadcasts[round_]) for round_ in sorted(state.broadcasts)},
        "clients": {client: raw(to_record(state.states[client])) for client in sorted(state.states)},
        "watched": {client: raw(arrays) for client, arrays in sorted(state.watched.items())},
        "downloaded": dict(sorted(state.downloaded.items())),
        "rows": [{key: value for key, value in row.items() if key != "seconds"} for row in state.rows],
    }


def files(tmp_path, kind="*"):
    return sorted((tmp_path / "checkpoint").glob(kind))


def rounds(tmp_path):
    """Return the rounds that are saved."""
    return [int(path.name[:5]) for path in files(tmp_path, "[0-9]*")]


CASES = [
    {"update": "kcfu"},
    {"update": "scaffold"},
    {"update": "chase_alignment", "query": "chase"},
    {"update": "fedavg", "federation": {"rounds": ROUNDS, "batch_norm": "local", "participation": 0.25}},
    {"update": "kcfu", "federation": {"rounds": ROUNDS, "client_momentum": "reset", "participation": 1.0}},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: changes["update"])
def test_a_restart_ends_with_the_same_bits(train, changes):
    whole, _ = train(keep=False, **changes)
    for until in (1, 3, 4):
        of_its_own = {"owner": f"killed in round {until}", **changes}
        assert train(until, **of_its_own) == (None, list(range(1, until + 1)))
        done, begun = train(**of_its_own)
        assert begun == list(range(until + 1, ROUNDS + 1))
        assert everything(done) == everything(whole)
        seconds = [[row["seconds"] for row in state.rows[:2]] for state in (done, whole)]
        assert seconds[0] != seconds[1]  # measured, kept


def test_a_cycle_that_is_trained_is_not_trained_again(train):
    whole, _ = train()
    done, begun = train()
    assert begun == []
    assert everything(done) == everything(whole)
    assert done.seconds == pytest.approx(whole.seconds, abs=1e-9)


def test_interrupted_again_and_again(train):
    for until in range(1, ROUNDS):
        assert train(until)[1] == [until]
    done, begun = train()
    assert begun == [ROUNDS]
    assert everything(done) == everything(train(keep=False)[0])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("flip", "[0-9]*"),
        ("remove", "[0-9]*"),
        ("flip", "global-*"),
        ("cut", "client_00000-*"),
        ("empty", "kept_00003-*"),
        ("remove", "kept_00003-*"),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(train, tmp_path, damage, kind, caplog):
    all_train = {"federation": {"rounds": ROUNDS, "participation": 1.0}}
    train(4, **all_train)
    content = files(tmp_path, "[0-9]*")[-1].read_text()
    last = [path for path in files(tmp_path, kind) if path.name in content or path.name.startswith("00004")][-1]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        last.unlink()
    else:
        last.write_bytes({"flip": bytes(content), "cut": content[:-7], "empty": b""}[damage])
    done, begun = train(**all_train)
    assert begun == [4, 5]
    assert (last.name in caplog.text) == ((damage, kind) != ("remove", "[0-9]*"))
    assert everything(done) == everything(train(keep=False, **all_train)[0])


def test_training_begins_again_where_no_checkpoint_is_whole(train, tmp_path):
    train(4)
    for path in files(tmp_path):
        path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    done, begun = train()
    assert begun == [1, 2, 3, 4, 5]
    assert everything(done) == everything(train(keep=False)[0])


def test_an_older_file_that_a_checkpoint_needs_is_checked_too(train, tmp_path):
    slow = {"federation": {"rounds": ROUNDS, "participation": 0.25}}
    train(4, **slow)
    first = min(files(tmp_path, "client_*"), key=lambda path: path.stat().st_mtime_ns)
    first.write_bytes(first.read_bytes()[:-1])  # one client of four a round: both rounds need it
    done, begun = train(**slow)
    assert begun == [1, 2, 3, 4, 5]
    assert everything(done) == everything(train(keep=False, **slow)[0])


def test_checkpoints_of_another_owner_are_not_used(train, tmp_path):
    train(3)
    _, begun = train(4, owner="another")
    assert begun == [1, 2, 3, 4]
    train(3)
    assert train()[1] == [4, 5]


def test_only_files_stay_that_the_last_two_rounds_need(train, tmp_path):
    done, _ = train(federation={"rounds": ROUNDS, "participation": 1.0})
    assert rounds(tmp_path) == [4, 5]
    listed = [json.loads(path.read_text())["files"].values() for path in files(tmp_path, "[0-9]*")]
    assert {path.name for path in files(tmp_path, "*.safetensors")} == {*listed[0], *listed[1]}
    assert len(files(tmp_path, "client_*")) == 2 * len(done.states)


def test_a_round_writes_the_clients_that_trained_alone(train, tmp_path):
    train(4, federation={"rounds": ROUNDS, "participation": 0.25})
    before, last = (json.loads(path.read_text())["files"].items() for path in files(tmp_path, "[0-9]*"))
    changed = {key.partition("_")[0] for key, _ in last - before}
    assert changed == {"global", "rows", "client", "kept", "broadcast"}
    assert len([key for key, _ in last - before if key.startswith("client")]) == 1


def test_a_disk_that_is_full_ends_the_run_and_leaves_the_round_before(train, tmp_path, monkeypatch):
    train(2)
    with monkeypatch.context() as patch:

        def full(*_arguments):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(CannotWrite, match=r"checkpoint: cannot be written: No space left .* same command again"):
            train()
    assert rounds(tmp_path)[-1] == 2
    done, begun = train()
    assert begun == [3, 4, 5]
    assert everything(done) == everything(train(keep=False)[0])


def test_arrays_that_do_not_lie_in_order_survive(tmp_path):
    store = Store(tmp_path, "me")
    state, sites = begin(store, [], {}, 0)
    turned = torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1)
    state.round, state.global_state = 1, {"turned": turned}
    save(state, sites, store)
    store.wait()
    assert torch.equal(resumed(tmp_path).global_state["turned"], turned)


def test_rounds_that_follow_soon_are_written_together(train, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kafal_pipeline.federation.between_rounds.store.time.monotonic", lambda: now[0])
    slow = {"federation": {"rounds": ROUNDS, "participation": 0.25}}
    train(4, every=1.0, on_round=lambda _: now.append(now.pop() + 0.4), **slow)  # 0, 0.4, 0.8, 1.2 when they end
    monkeypatch.undo()
    assert rounds(tmp_path) == [4]
    done, begun = train(**slow)
    assert begun == [5]
    assert everything(done) == everything(train(keep=False, **slow)[0])


@pytest.mark.parametrize("which", [-1, -2], ids=["last", "the one before"])
def test_no_byte_of_a_checkpoint_stops_the_run_when_it_is_damaged(train, tmp_path, which, caplog):
    train(3, federation={"rounds": ROUNDS, "participation": 1.0})
    kept = {path: path.read_bytes() for path in files(tmp_path)}
    path = files(tmp_path, "[0-9]*")[which]
    for position in range(0, len(kept[path]), len(kept[path]) // 24):
        content = bytearray(kept[path])
        content[position] ^= 1
        path.write_bytes(content)
        caplog.clear()
        assert resumed(tmp_path / "checkpoint").round == (2 if which == -1 else 3)
        assert path.name in caplog.text
        for other, whole in kept.items():
            other.write_bytes(whole)


@pytest.mark.parametrize("content", ["[]", "{}", "1", '{"owner": "me"}', '{"owner": "me", "files": {"a": 1}}', "{"])
def test_files_of_other_programs_are_damaged(tmp_path, content, caplog):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / f"00001-{hashlib.sha256(content.encode()).hexdigest()[:16]}.json").write_text(content)
    assert resumed(folder).round == 0
    assert "damaged" in caplog.text
    assert not files(tmp_path)
