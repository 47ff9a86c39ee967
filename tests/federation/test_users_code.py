"""Mistakes in a query or an update of a user's own are told as theirs."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.query.base import Selection, check_selection, largest
from kafal_pipeline.query.random import Random

POOL = np.array([2, 3, 5, 7])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a strategy from a module of a user's own."""
    (tmp_path / "own_module.py").write_text("class Own:\n    def select(self):\n        return [].foo\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    import own_module  # made above

    assert isinstance(own_module, ModuleType)
    yield own_module.Own()
    del sys.modules["own_module"]


def chosen(*samples):
    return Selection(np.array(samples), np.zeros(len(samples)))


@pytest.mark.parametrize(
    ("selection", "budget", "part"),
    [
        (chosen(2, 3, 5, 7), 2, "returned 4 samples; it must return 2 different samples of the 4"),
        (chosen(2), 2, "returned 1 sample; it must return 2 different samples"),
        (chosen(2, 3), 9, "returned 2 samples; it must return 4"),
        (chosen(2, 2), 2, "returned a sample twice"),
        (chosen(2, 4), 2, "returned sample 4, which is not in the pool"),
        (None, 2, "returned NoneType instead of a Selection"),
    ],
)
def test_a_selection_that_is_none_is_an_error_that_names_the_query_client_and_cycle(own, selection, budget, part):
    with pytest.raises(UserError, match=r"query own_module\.Own: client 3, cycle 1: ") as raised:
        check_selection(own, selection, POOL, budget, "client 3, cycle 1")
    assert part in str(raised.value)


def test_a_selection_as_it_should_be_is_returned(own):
    good = chosen(7, 2)
    assert check_selection(own, good, POOL, 2, "") is good
    assert check_selection(own, chosen(2, 3, 5, 7), POOL, 9, "")


def test_what_goes_wrong_in_a_users_class_is_told_with_its_line(own):
    with pytest.raises(UserError) as raised, blamed("query", own, "client 3, cycle 1"):
        own.select()
    message = str(raised.value)
    assert message.startswith("query own_module.Own: client 3, cycle 1: AttributeError: 'list' object has no attribute")
    assert 'own_module.py", line 3, in select' in message
    assert "test_users_code" not in message


def test_what_goes_wrong_in_our_own_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), blamed("query", Random(), ""):
        _ = 1 / 0


def test_scores_must_be_one_for_each_sample():
    with pytest.raises(ValueError, match="scores of shape \\(3,\\) for 4 samples"):
        largest(POOL, np.zeros(3), 2, np.random.default_rng(0))
