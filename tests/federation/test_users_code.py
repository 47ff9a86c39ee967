"""Mistakes in a user's own classes are reported as theirs, and what they change in the process is put back."""

from __future__ import annotations

import os
import pickle
import random
import sys

import numpy as np
import pytest
import torch

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.common.randomness import Purpose, seed_global_generators
from kafal_pipeline.common.users_code import blamed, own_classes
from kafal_pipeline.query.random import Random

OWN = """
import os, sys, threading
from dataclasses import dataclass
import numpy as np, torch
from kafal_pipeline.query.base import ScoreQuery

class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(first)
        self.lock = threading.Lock()

class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")

@dataclass(frozen=True)
class Own(ScoreQuery):
    def scores(self, pool, rng):
        return [].foo

    def do(self, what, *args):
        return what(*args)

    def fail(self, kind):
        raise {"exit": SystemExit(0), "stop": StopIteration(), "locked": Unpicklable(1, 2), "mute": Mute()}[kind]

    def change(self, folder):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(3)
        torch.use_deterministic_algorithms(True)
        np.seterr(all="raise")
        os.chdir(folder)

class Model(torch.nn.Module):
    def forward(self, images):
        return [].bar
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a module of a user's own."""
    (tmp_path / "own_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    import own_module  # made above

    yield own_module
    del sys.modules["own_module"]


@pytest.fixture
def own(module):
    return module.Own()


def test_what_goes_wrong_in_a_users_class_is_reported_with_its_line(own):
    with pytest.raises(UserError) as raised, blamed("client 3, cycle 1", query=own):
        own.scores(None, None)
    message = str(raised.value)
    assert message.startswith("query own_module.Own: client 3, cycle 1: AttributeError: 'list' object has no attribute")
    assert 'own_module.py", line ' in message
    assert "in scores" in message
    assert "test_users_code" not in message


@pytest.mark.parametrize(
    ("kind", "said"),
    [("exit", "SystemExit: 0"), ("stop", "StopIteration"), ("locked", "own_module.Unpicklable: 1"), ("mute", "Mute")],
)
def test_every_exception_is_reported_and_travels_between_processes(own, kind, said):
    with pytest.raises(UserError) as raised, blamed("client 3, cycle 1", query=own):
        own.fail(kind)
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again).startswith("query own_module.Own: client 3, cycle 1: ")
    assert said in str(again)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError, UserError])
def test_what_is_not_the_classs_own_fault_passes(own, error):
    with pytest.raises(error) as raised, blamed("client 3, cycle 1", query=own):
        raise error("mine")
    assert str(raised.value) == "mine"


def test_what_is_not_allowed_is_reported_without_the_name_of_an_exception(own):
    with (
        pytest.raises(UserError, match=r"^query own_module\.Own: cycle 1: two; allowed: one$"),
        blamed("cycle 1", query=own),
    ):
        raise NotAllowed("two; allowed: one")


def test_of_several_classes_the_innermost_is_blamed(module, own):
    with (
        pytest.raises(UserError, match=r"^model own_module\.Model: here: .*'bar'"),
        blamed("here", model=module.Model()),
    ):
        module.Model()(None)
    model = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"^query own_module\.Own: here: "), blamed("here", query=own, model=model):
        own.do(model, "nothing")


def test_a_part_of_a_composition_is_blamed(module):
    from kafal_pipeline.query.compose import Compose  # noqa: PLC0415

    query = Compose(score="own_module.Own")
    assert own_classes({"query": query, "update": Random()}) == ["query own_module.Own"]
    with pytest.raises(UserError, match=r"^query own_module\.Own: here: AttributeError"), blamed("here", query=query):
        query.select(None, 1, None)


def test_what_goes_wrong_in_our_own_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), blamed("", query=Random()):
        _ = 1 / 0


def test_what_is_the_whole_processs_is_put_back(own, tmp_path):
    def state():
        floats = (torch.get_default_dtype(), torch.get_default_device(), np.geterr())
        return (
            floats,
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            os.getcwd(),
            torch.are_deterministic_algorithms_enabled(),
        )

    before = state()
    with blamed("", query=own):
        own.change(tmp_path)
        assert all(now != then for now, then in zip(state(), before, strict=True))
    assert state() == before


def test_global_generators_are_seeded_by_client_and_cycle():
    def draw(client):
        seed_global_generators(0, Purpose.QUERY, 1, 0, client)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw(3) == draw(3)
    assert all(one != other for one, other in zip(draw(3), draw(4), strict=True))
