"""Pools: the published sizes, no label before its time, and nothing lost."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import BudgetConfig
from kafal_pipeline.data import annotate, check_pool, client_pools, cycle_budget, initial_pool
from kafal_pipeline.data.pools import labels_of

COLUMNS = ["client", "sample", "label", "labelled_in_cycle"]


@pytest.mark.parametrize(
    ("size", "amount", "expected"),
    [(5021, 0.10, 503), (5000, 0.05, 250), (100, 0.07, 7), (5020, 0.1, 502), (7, 1.0, 7), (3, 0.01, 1), (9, 4, 4)],
)
def test_budget(size, amount, expected):
    assert cycle_budget(size, amount) == expected


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_budget_is_the_exact_ceiling(size, thousandths):
    assert cycle_budget(size, thousandths / 1000) == -(-size * thousandths // 1000)


def test_published_sizes(published_split):
    split = json.loads(published_split.read_text())
    budget = BudgetConfig(initial=0.10, per_cycle=0.05)
    pool = initial_pool(split, np.zeros(50_000, dtype=np.int64), budget, 6, 0)
    labelled = pool[pool["labelled_in_cycle"] == 0].groupby("client").size()
    assert labelled.tolist() == [503, 456, 501, 502, 557, 583, 518, 519, 453, 413]
    budgets = [cycle_budget(len(items), budget.per_cycle) for items in split]
    assert budgets == [252, 228, 251, 251, 279, 292, 259, 260, 227, 207]
    totals = [sum(labelled) + cycle * sum(budgets) for cycle in range(6)]
    assert totals == [5005, 7511, 10017, 12523, 15029, 17535]


@st.composite
def trials(draw):
    """A split of shuffled samples, their labels, a budget it can pay, the number of cycles, a seed."""
    sizes = draw(st.lists(st.integers(8, 30), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    split = np.split(rng.permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    initial = draw(st.sampled_from([0.1, 0.25, 1, 3]))
    per_cycle = draw(st.sampled_from([0.05, 0.1, 1, 2]))
    labels = rng.integers(0, 4, sum(sizes))
    return split, labels, BudgetConfig(initial=initial, per_cycle=per_cycle), draw(st.integers(1, 3)), rng


@settings(deadline=None, max_examples=50)
@given(trials(), st.integers(0, 2**32 - 1))
def test_a_trial_of_pools(trial, seed):
    split, labels, budget, cycles, rng = trial
    pool = start = initial_pool(split, labels, budget, cycles, seed)
    assert list(pool.columns) == COLUMNS
    assert (pool.dtypes == np.int64).all()
    pd.testing.assert_frame_equal(pool, pool.sort_values(["client", "sample"]))
    pd.testing.assert_frame_equal(pool, initial_pool(split, labels, budget, cycles, seed))
    for cycle in range(1, cycles):
        rows = [
            (client, sample)
            for client, own in client_pools(pool).items()
            for sample in rng.permutation(own.unlabelled)[: cycle_budget(len(split[client]), budget.per_cycle)]
        ]
        before = pool.copy()
        after = annotate(pool, pd.DataFrame(rows, columns=["client", "sample"]), labels, cycle)
        pd.testing.assert_frame_equal(pool, before)
        pool = after
        assert (pool["labelled_in_cycle"] == cycle).sum() == len(rows)
    known = pool["labelled_in_cycle"] >= 0
    np.testing.assert_array_equal(pool["label"][known], labels[pool["sample"][known]])
    assert (pool["label"][~known] == -1).all()

    pools = client_pools(pool)
    found, last = labels_of(pool, cycles - 1, 4), pool["labelled_in_cycle"] == cycles - 1
    assert (found.labelled, found.samples) == (known.sum(), len(pool))
    assert found.asked.tolist() == [((pool["label"] == label) & last).sum() for label in range(4)]
    assert list(pools) == list(range(len(split)))
    for client, own in pools.items():
        expected = cycle_budget(len(split[client]), budget.initial)
        expected += (cycles - 1) * cycle_budget(len(split[client]), budget.per_cycle)
        assert len(own.labelled) == expected
        np.testing.assert_array_equal(np.sort(np.concatenate([own.labelled, own.unlabelled])), np.sort(split[client]))
        np.testing.assert_array_equal(own.labels, labels[own.labelled])
        np.testing.assert_array_equal(own.initial_unlabelled, client_pools(start)[client].unlabelled)
        for array in (own.labelled, own.unlabelled, own.initial_unlabelled):
            assert array.dtype == np.int64
            assert (np.diff(array) > 0).all()


def test_pools_of_one_client_do_not_depend_on_the_others():
    labels = np.zeros(60, dtype=np.int64)
    budget = BudgetConfig(initial=5, per_cycle=1)
    one = initial_pool([range(20), range(20, 40)], labels, budget, 1, 0)
    two = initial_pool([range(50, 60), range(20, 40)], labels, budget, 1, 0)
    np.testing.assert_array_equal(client_pools(one)[1].labelled, client_pools(two)[1].labelled)
    assert client_pools(one)[0].labelled.tolist() != (client_pools(one)[1].labelled - 20).tolist()
    other = initial_pool([range(20), range(20, 40)], labels, budget, 1, 1)
    assert client_pools(one)[1].labelled.tolist() != client_pools(other)[1].labelled.tolist()


def test_a_budget_that_a_client_cannot_pay():
    budget = BudgetConfig(initial=4, per_cycle=3)
    split = [range(10), range(10, 19)]
    labels = np.zeros(19, dtype=np.int64)
    assert len(initial_pool([range(10)], labels, budget, 3, 0)) == 10
    with pytest.raises(UserError, match=r"client 1 has 9 samples, but .* 4 at the start and 3 .* 10 in all.*per_cycle"):
        initial_pool(split, labels, budget, 3, 0)


@pytest.fixture
def small_pool():
    return pd.DataFrame([[0, 1, 5, 0], [0, 4, -1, -1], [1, 2, -1, -1], [1, 3, 7, 0]], columns=COLUMNS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 2)], "sample 2 of client 0, queried in cycle 3, is not in that client's pool"),
        ([(0, 4), (5, 1)], "sample 1 of client 5, .* is not in"),
        ([(1, 2), (1, 3)], "sample 3 of client 1, .* is labelled already"),
        ([(0, 4), (1, 2), (0, 4)], "sample 4 of client 0, .* is queried twice"),
    ],
)
def test_queries_that_cannot_be(small_pool, rows, message):
    with pytest.raises(ValueError, match=message):
        annotate(small_pool, pd.DataFrame(rows, columns=["client", "sample"]), np.arange(9), 3)


def test_annotate_takes_other_columns_and_empty_queries(small_pool):
    queried = pd.DataFrame({"client": [1], "sample": [2], "score": [0.5], "rank": [0]})
    after = annotate(small_pool, queried, np.arange(9), 3)
    assert after.loc[2].tolist() == [1, 2, 2, 3]
    pd.testing.assert_frame_equal(annotate(small_pool, queried[:0], np.arange(9), 3), small_pool)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (1, "client", -1, "row 1: client must be from 0 to 9"),
        (1, "client", 10, "row 1: client must be from 0 to 9"),
        (2, "sample", -1, "row 2: sample must be from 0 to 9"),
        (2, "sample", 10, "row 2: sample must be from 0 to 9; found client 0, sample 10, label -1"),
        (5, "sample", 4, "row 5: the sample occurs twice"),
        (0, "labelled_in_cycle", 3, "row 0: labelled_in_cycle must be from -1 to 2"),
        (0, "labelled_in_cycle", -2, "row 0: labelled_in_cycle must be from -1 to 2"),
        (0, "labelled_in_cycle", -1, "row 0: label must be that of the sample, or -1"),
        (3, "label", 1, "row 3: label must be that of the sample, or -1"),
    ],
)
def test_tables_that_are_no_pools(row, column, value, message):
    labels = np.arange(10) % 3
    pool = initial_pool([range(5), range(5, 10)], labels, BudgetConfig(initial=2, per_cycle=1), 3, 0)
    pool = pool.sort_values("labelled_in_cycle", ascending=False, ignore_index=True).sort_values(
        "client", kind="stable", ignore_index=True
    )
    pool = annotate(pool, pool.loc[[2, 7], ["client", "sample"]], labels, 2)
    check_pool(pool, labels, 2)
    pool.loc[2:, ["label", "labelled_in_cycle"]] = -1
    check_pool(pool, labels, 2)
    pool.loc[row, column] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        check_pool(pool, labels, 2)
