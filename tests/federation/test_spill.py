"""The store of clients' states: the same values from memory and from disk, a bound that holds, places used again."""

from __future__ import annotations

import errno
import gc
from io import FileIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.federation.between_rounds.client_states import (
    ClientState,
    ClientStates,
    StoredStates,
    from_record,
    to_record,
)
from kafal_pipeline.federation.between_rounds.spill import Spill

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


KEYS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 99), st.integers(0, 40)),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("get"), KEYS),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS, st.integers(0, 400))
def test_it_is_a_dictionary_whatever_fits_in_memory(steps, limit):
    store, plain = Spill(limit), {}
    for what, key, *arguments in steps:
        if what == "set":
            store[key] = plain[key] = value(*arguments)
        elif what == "delete":
            assert (store.pop(key, None) is None) == (plain.pop(key, None) is None)
        else:
            assert (key in store) == (key in plain)
            assert store.get(key) is None or same(store[key], plain[key])
        assert store.in_memory <= limit
    assert set(store) == set(plain)
    assert len(store) == len(plain)
    assert all(same(store[key], plain[key]) for key in plain)


def test_below_the_bound_there_is_no_file_and_no_copy(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    store, mine = Spill(), value(0)
    store["a"] = mine
    assert store["a"] is mine
    assert store.on_disk == 0


def test_replaced_and_deleted_values_leave_their_place_to_others(tmp_path):
    store = Spill(0, tmp_path)
    for key in range(5):
        store[key] = value(key)
    size = store.on_disk
    for turn in range(3):
        for key in range(5):
            store[key] = value(10 * turn + key)
    del store[3]
    store["other"] = value(99)
    assert store.on_disk == size
    assert [int(store[key]["count"]) for key in (0, 4, "other")] == [20, 24, 99]
    assert 3 not in store
    with pytest.raises(KeyError):
        store[3]


def test_the_file_has_no_name_and_goes_with_the_store(tmp_path):
    store = Spill(0, tmp_path)
    store["a"] = value(0)
    file = store._file
    assert list(tmp_path.iterdir()) == []
    assert not file.closed
    del store
    gc.collect()
    assert file.closed


def test_special_values_and_types_come_back_bit_for_bit(tmp_path):
    store = Spill(0, tmp_path)
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


def test_a_full_disk_is_the_users_to_mend(tmp_path, monkeypatch):
    class Full(FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Full(tmp_path / "file", "w+"))
    store = Spill(ONE, tmp_path)
    store["a"] = value(0, 90)
    with pytest.raises(UserError, match=r"No space left on device.*0\.0 MB.*partition\.clients") as error:
        store["b"] = value(1, 90)
    assert str(tmp_path) in str(error.value)
    assert same(store["a"], value(0, 90))  # nothing is lost by it


def test_a_write_that_takes_a_part_goes_on(tmp_path, monkeypatch):
    class Slow(FileIO):
        def write(self, content):
            return super().write(bytes(content[:7]))

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Slow(tmp_path / "file", "w+"))
    store = Spill(0, tmp_path)
    store["a"] = value(0)
    assert same(store["a"], value(0))


@pytest.mark.parametrize("momentum", [None, {}, {"a/b": np.ones(2)}])
def test_a_client_becomes_a_record_and_back(momentum):
    state = ClientState(momentum, 3, 7, {"control": np.zeros(3)}, {"bn.weight": np.ones(1)})
    back = from_record(to_record(state))
    assert (back.epochs, back.steps) == (3, 7)
    assert back.momentum == momentum if not momentum else same(back.momentum, momentum)
    assert same(back.kept, state.kept)
    assert same(back.batch_norm, state.batch_norm)


@pytest.mark.parametrize("limit", [0, 10**6])
def test_views_are_dictionaries_of_their_own_in_one_store(limit):
    import torch

    store = Spill(limit)
    clients, models, others = ClientStates(range(3), store), StoredStates("local", store), StoredStates("other", store)
    assert list(clients) == [0, 1, 2]
    assert clients[1] == ClientState()
    clients[1] = ClientState(None, 2, 4)
    models[1] = {"weight": torch.ones(3)}
    others[1] = {"weight": torch.zeros(3)}
    assert (clients[1].epochs, clients[0].epochs) == (2, 0)
    assert torch.equal(models[1]["weight"], torch.ones(3))
    assert list(models) == [1]
    del models[1]
    assert 1 not in models
    assert torch.equal(others[1]["weight"], torch.zeros(3))
    with pytest.raises(KeyError):
        clients[9]
    del clients[1]
    assert len(clients) == 2
    assert len(store) == 1
