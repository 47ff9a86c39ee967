"""The store of clients' states: the same values from memory and from files, bounds that hold, commits that survive."""

from __future__ import annotations

import errno
import gc
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.federation.between_rounds import store as store_module
from kafal_pipeline.federation.between_rounds.client_states import ClientState, Kind, from_record, to_record
from kafal_pipeline.federation.between_rounds.cycle_state import begin, states
from kafal_pipeline.federation.between_rounds.store import Damaged, Store

ONE = 4 * 100
"""Bytes of a value."""


def value(seed, size=100):
    return {"weight": np.random.default_rng(seed).random(size, dtype=np.float32), "count": np.array(seed)}


def same(first, second):
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].tobytes() == second[name].tobytes()
        for name in first
    )


def names(folder):
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


KEYS = st.sampled_from([f"client_{number:05d}" for number in range(6)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 99), st.integers(0, 40)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("commit"), KEYS),
    ),
    max_size=40,
)


def assert_holds(store, expected):
    assert set(store) == set(expected)
    assert len(store) == len(expected)
    assert all(same(store[key], expected[key]) for key in expected)


@settings(deadline=None)
@given(STEPS, st.integers(0, 400), st.booleans())
def test_it_is_a_dictionary_whatever_fits_in_memory(tmp_path_factory, steps, limit, durable):
    folder = tmp_path_factory.mktemp("store")
    store, plain, commits = Store(folder, "me" if durable else None, limit=limit), {}, [{}]
    for what, key, *arguments in steps:
        if what == "set":
            store[key] = plain[key] = value(*arguments)
        elif what == "delete":
            assert (store.pop(key, None) is None) == (plain.pop(key, None) is None)
        elif what == "commit" and durable:
            store.commit(len(commits), {"commits": len(commits)})
            commits.append(dict(plain))
        else:
            assert (key in store) == (key in plain)
            assert store.get(key) is None or same(store[key], plain[key])
        assert store.in_memory <= limit
    assert_holds(store, plain)
    store.wait()
    if durable:
        again = Store(folder, "me")
        assert_holds(again, commits[-1])
        assert again.resumed == ({"commits": len(commits) - 1} if commits[1:] else None)


def test_below_the_bound_there_is_no_file_and_no_copy(tmp_path):
    store, mine = Store(tmp_path), value(0)
    store["a"] = mine
    assert store["a"] is mine
    assert not list(tmp_path.iterdir())


def test_files_of_replaced_and_deleted_values_are_removed(tmp_path):
    store = Store(tmp_path, limit=0)
    for turn in range(3):
        for key in "abc":
            store[key] = value(10 * turn + ord(key))
    del store["b"]
    assert names(store.folder) == ["a", "c"]
    assert [int(store[key]["count"]) for key in "ac"] == [20 + ord("a"), 20 + ord("c")]
    assert "b" not in store
    with pytest.raises(KeyError):
        store["b"]


def test_what_is_not_durable_goes_with_the_store(tmp_path):
    store = Store(tmp_path, limit=0)
    store["a"] = value(0)
    assert (
        len(list(tmp_path.glob(".*.tmp/a-*"))) == 1
    )  # a name that the next run's `tidy` knows, should this one be killed
    del store
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_special_values_and_types_come_back_bit_for_bit(tmp_path):
    store = Store(tmp_path, limit=0)
    strange = {
        "nan": np.array([np.nan, -0.0, np.inf, 5e-324]),
        "empty": np.empty((0, 3), dtype=np.int64),
        "flag": np.array(True),
        "transposed": np.arange(6, dtype=np.float16).reshape(2, 3).T,
    }
    store["a"] = strange
    assert same(store["a"], strange)
    store["a"]["nan"][0] = 1  # what is read may be changed: torch.from_numpy wants that
    store["nothing"] = {}
    assert store["nothing"] == {}


def full(path, content):
    path.touch()
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("owner", [None, "me"])
def test_a_full_disk_is_the_users_to_mend(tmp_path, monkeypatch, owner):
    store = Store(tmp_path, owner, limit=ONE)
    store["a"] = value(0, 90)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(CannotWrite, match=f"^{tmp_path}: cannot be written: No space left .* same command again"):
            store["b"] = value(1, 90)
        if owner:
            store.commit(1, {})
            with pytest.raises(CannotWrite, match=f"^{tmp_path}: cannot be written: No space left"):
                store.wait()
    assert not names(store.folder)  # nothing half-written
    assert same(store["a"], value(0, 90))  # nothing is lost by it
    assert same(store["b"], value(1, 90))


def test_a_commit_writes_what_is_new_alone(tmp_path):
    store = Store(tmp_path, "me")
    store["a"], store["b"] = value(0), value(1)
    store.commit(1, {})
    store.wait()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("a-*")}
    store["b"] = value(2)
    store.commit(2, {})
    store.wait()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("a-*")} == times
    assert names(tmp_path) == ["00001", "00002", "a", "b", "b"]
    store.commit(3, {})
    store.wait()
    assert names(tmp_path) == ["00002", "00003", "a", "b"]


def test_every_file_of_a_commit_is_synced_before_it_is_named(tmp_path, monkeypatch):
    synced, original = set(), store_module.write_text
    monkeypatch.setattr(store_module.os, "fsync", lambda handle: synced.add(Path(f"/proc/self/fd/{handle}").readlink()))

    def write_text(path, text):
        assert {tmp_path / name for name in json.loads(text)["files"].values()} <= synced
        original(path, text)

    monkeypatch.setattr(store_module, "write_text", write_text)
    store = Store(tmp_path, "me", limit=ONE)
    for key in "abc":  # some in memory, some in files that are not durable yet
        store[key] = value(0, 90)
    store.commit(1, {})
    store.wait()
    assert len(synced) >= 3


def test_training_resumes_while_a_commit_is_written(tmp_path, monkeypatch):
    go_on, original = threading.Event(), Path.write_bytes

    def slow(path, content):
        go_on.wait(10)
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", slow)
    store = Store(tmp_path, "me")
    store["a"] = value(0)
    store.commit(1, {"round": 1})
    store["a"] = value(1)  # neither waits
    assert same(store["a"], value(1))
    go_on.set()
    store.wait()
    assert same(Store(tmp_path, "me")["a"], value(0))
    assert same(store["a"], value(1))


def test_a_damaged_file_is_named_when_it_is_read(tmp_path):
    store = Store(tmp_path, limit=0)
    store["a"] = value(0)
    (path,) = store.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match=f"^{path}: "):
        store["a"]
    path.unlink()
    with pytest.raises(Damaged, match=f"^{path}: .*No such file"):
        store["a"]


def test_a_value_is_exported_as_a_link_where_it_has_a_file(tmp_path):
    store = Store(tmp_path / "store", "me")
    store["a"] = value(0)
    store.commit(1, {})
    store.wait()
    store["b"] = value(1)
    for key in "ab":
        store.export(key, tmp_path / key)
    assert (tmp_path / "a").stat().st_nlink == 2
    assert (tmp_path / "b").stat().st_nlink == 1
    (tmp_path / "b").rename(tmp_path / "same")
    store.commit(2, {})
    store.wait()
    store.export("b", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "same").read_bytes()


@pytest.mark.parametrize("momentum", [None, {}, {"a/b": np.ones(2)}])
def test_a_client_becomes_a_record_and_back(momentum):
    state = ClientState(momentum, 3, 7, {"control": np.zeros(3)}, {"bn.weight": np.ones(1)})
    back = from_record(to_record(state))
    assert (back.epochs, back.steps) == (3, 7)
    assert back.momentum == momentum if not momentum else same(back.momentum, momentum)
    assert same(back.kept, state.kept)
    assert same(back.batch_norm, state.batch_norm)


@pytest.mark.parametrize("limit", [0, 10**6])
def test_kinds_are_dictionaries_of_their_own_in_one_store(limit):
    store = Store(limit=limit)
    clients, models, others = (
        begin(store, range(3), {}, 0)[1].states,
        states(store, "client"),
        Kind(store, "x", dict, dict),
    )
    assert list(clients) == [0, 1, 2]
    assert clients[1] == ClientState()
    clients[1] = ClientState(None, 2, 4)
    models[1] = {"weight": torch.ones(3)}
    others[1] = {"weight": np.zeros(3)}
    assert (clients[1].epochs, clients[0].epochs) == (2, 0)
    assert list(clients) == [0, 1, 2]
    assert torch.equal(models[1]["weight"], torch.ones(3))
    assert list(models) == [1]
    assert np.int64(1) in models
    del models[1]
    assert 1 not in models
    assert len(models) == 0
    assert not others[1]["weight"].any()
    with pytest.raises(KeyError):
        clients[9]
    assert sorted(store) == ["kept_00001", "x_00001"]
