"""The folder of model states: whole or absent, one state in memory at a time."""

from __future__ import annotations

import weakref

import pytest
import torch
from safetensors.torch import save

from kafal_pipeline.catalog import ManyStates
from kafal_pipeline.catalog.many_states import Lazy
from kafal_pipeline.common.errors import UserError


class Tracked(dict):
    __hash__ = object.__hash__


def test_what_is_saved_is_loaded(tmp_path):
    dataset = ManyStates(filepath=str(tmp_path / "models"))
    data = {"client_00001": {"a.b": torch.rand(3, 2).T, "n": torch.tensor(4)}, "broadcast_00000": {"c": torch.ones(1)}}
    assert not dataset.exists()
    dataset.save(data)
    assert dataset.exists()
    loaded = dataset.load()
    assert set(loaded) == set(data)
    for group, state in data.items():
        assert loaded[group].keys() == state.keys()
        assert all(torch.equal(loaded[group][name], tensor) for name, tensor in state.items())
    dataset.save({"client_00002": {}})
    assert list(dataset.load()) == ["client_00002"]


def test_states_are_written_one_at_a_time(tmp_path):
    alive = weakref.WeakSet()

    def make(_):
        assert not alive
        state = Tracked(weight=torch.ones(2))
        alive.add(state)
        return state

    ManyStates(filepath=str(tmp_path / "models")).save(Lazy(map(str, range(5)), make))
    assert len(list((tmp_path / "models").iterdir())) == 5


def test_an_interrupted_save_leaves_what_was_there(tmp_path):
    dataset = ManyStates(filepath=str(tmp_path / "models"))
    dataset.save({"old": {"weight": torch.ones(2)}})

    def broken(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.save(Lazy(["new", "other"], broken))
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert list(dataset.load()) == ["old"]


def test_what_can_be_exported_is_not_read(tmp_path):
    def broken(_):
        raise AssertionError

    dataset = ManyStates(filepath=str(tmp_path / "models"))
    (tmp_path / "ready").write_bytes(save({"weight": torch.ones(2)}))
    dataset.save(Lazy(["a", "b"], broken, lambda _, path: path.hardlink_to(tmp_path / "ready")))
    loaded = dataset.load()
    assert list(loaded) == ["a", "b"]
    assert torch.equal(loaded["b"]["weight"], torch.ones(2))
    assert (tmp_path / "ready").stat().st_nlink == 3
    assert "c" not in loaded
    with pytest.raises(UserError, match=r"c\.safetensors: there is no such file"):
        loaded["c"]
