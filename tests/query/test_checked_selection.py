"""What a query returns is checked where it returns it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.query.base import Selection, checked_arrays, checked_selection, largest
from kafal_pipeline.query.compose import Compose

POOL = np.array([2, 3, 5, 7])
TWO = np.array([2, 3])


def chosen(*samples, scores=0.0, memory=None):
    count = len(samples)
    scores = np.full(count, scores) if isinstance(scores, float) else scores
    return Selection(np.array(samples), scores, {} if memory is None else memory)


@pytest.mark.parametrize(
    ("selection", "budget", "part"),
    [
        (chosen(2, 3, 5, 7), 2, "returned 4 samples; it must return 2 different samples of the 4"),
        (chosen(2), 2, "returned 1 sample; it must return 2 different samples"),
        (chosen(2, 3), 9, "returned 2 samples; it must return 4"),
        (chosen(2, 2), 2, "returned a sample twice"),
        (chosen(2, 4), 2, "returned sample 4, which is not in the pool"),
        (chosen(2, -1), 2, "returned sample -1, which is not in the pool"),
        (None, 2, "returned None; allowed: a Selection"),
        ((TWO, np.zeros(2)), 2, "returned an object of type tuple; allowed: a Selection"),
        (chosen(2.0, 3.0), 2, "ndarray of float64 of shape (2,) as samples; allowed: an array of whole numbers"),
        (chosen(True, False), 2, "ndarray of bool of shape (2,) as samples"),
        (Selection([2, 3], np.zeros(2)), 2, "an object of type list as samples"),
        (Selection(None, np.zeros(2)), 2, "None as samples"),
        (Selection(torch.tensor([2, 3]), np.zeros(2)), 2, "Tensor of torch.int64 of shape (2,) as samples"),
        (Selection(TWO.astype(object), np.zeros(2)), 2, "ndarray of object of shape (2,) as samples"),
        (Selection(TWO[:, None], np.zeros(2)), 2, "ndarray of int64 of shape (2, 1) as samples"),
        (chosen(2, 3, scores=np.zeros(5)), 2, "the scores are ndarray of float64 of shape (5,)"),
        (chosen(2, 3, scores=[0.0, 0.0]), 2, "the scores are an object of type list"),
        (chosen(2, 3, scores=np.array(["a", "b"])), 2, "the scores are ndarray of <U1"),
        (chosen(2, 3, scores=np.ma.masked_invalid([0.0, np.nan])), 2, "the scores are MaskedArray of float64"),
        (Selection(np.ma.array(TWO, mask=[0, 1]), np.zeros(2)), 2, "MaskedArray of int64 of shape (2,) as samples"),
        (chosen(2, 3, memory={"a": np.ma.array([1, 2], mask=[0, 1])}), 2, "the memory has MaskedArray of int64"),
        (chosen(2, 3, scores=float("nan")), 2, "2 of 2 scores are not finite"),
        (chosen(2, 3, scores=float("inf")), 2, "2 of 2 scores are not finite"),
        (chosen(2, 3, memory={"a": np.array(["x"])}), 2, "the memory has ndarray of <U1 of shape (1,) as 'a'"),
        (chosen(2, 3, memory={"a": [1]}), 2, "the memory has an object of type list as 'a'"),
        (chosen(2, 3, memory={1: np.zeros(1)}), 2, "the memory has the name 1"),
        (chosen(2, 3, memory=[1]), 2, "the memory is an object of type list"),
    ],
)
def test_a_selection_that_is_none_is_refused(selection, budget, part):
    with pytest.raises(NotAllowed) as raised:
        checked_selection(selection, POOL, budget)
    assert part in str(raised.value)


def test_a_selection_as_it_should_be_is_returned_in_the_documented_types():
    memory = {"a": np.arange(6, dtype=">f4")[::-2]}
    found = checked_selection(
        Selection(np.array([7, 2], dtype=np.uint8), np.ones(2, dtype=np.float32), memory), POOL, 2
    )
    assert (found.samples.tolist(), found.samples.dtype) == ([7, 2], np.int64)
    assert (found.scores.tolist(), found.scores.dtype) == ([1.0, 1.0], np.float64)
    assert torch.from_numpy(found.memory["a"]).tolist() == [5.0, 3.0, 1.0]
    assert checked_selection(chosen(2, 3, 5, 7), POOL, 9).samples.tolist() == [2, 3, 5, 7]
    assert checked_selection(chosen(2, 3, scores=None), POOL, 2).scores.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("found", [None, [np.zeros(1)], {"a": 1.0}, {"a": torch.zeros(1)}, {"a": np.array([None])}])
def test_a_summary_is_arrays_of_numbers_by_name(found):
    with pytest.raises(NotAllowed, match=r"^the summary (is|has) .*allowed: a dict from names to NumPy arrays"):
        checked_arrays(found, "summary")


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((4, 1)), [0.0] * 4, None, torch.zeros(4)])
def test_scores_must_be_one_for_each_sample(scores, make_pool, monkeypatch):
    with pytest.raises(NotAllowed, match=r"the scores are .* of shape \(4,\)"):
        largest(POOL, scores, 2, np.random.default_rng(0))
    pool, query = make_pool(samples=4), Compose(score="random")
    monkeypatch.setattr(type(query.score_part), "scores", lambda self, pool, rng: scores)
    with pytest.raises(NotAllowed, match=r"the scores are .* of shape \(4,\)"):
        query.select(pool, 2, np.random.default_rng(0))
