import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.comparison.pairs import against_baselines, all_pairs, holm, win_matrix

NAMES = ["a", "b", "c"]
tables = st.lists(st.tuples(*[st.integers(0, 20)] * 3), min_size=1, max_size=8).map(
    lambda rows: pd.DataFrame(rows, columns=NAMES, dtype=float)
)


def by_pair(table):
    return table.set_index(["strategy", "against"]).sort_index()


def test_holm_gives_published_values():
    # The example of stdlib's padjust, whose values are those of R's p.adjust(method = "holm").
    assert holm([0.319, 0.201, 0.4, 0.374, 0.113]) == pytest.approx([0.957, 0.804, 0.957, 0.957, 0.565])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_never_lowers_a_p_value_and_keeps_order_wherever_it_stands(values, random):
    adjusted = holm(values)
    assert (adjusted >= np.array(values)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()
    order = random.sample(range(len(values)), len(values))
    assert holm([values[place] for place in order]) == pytest.approx(adjusted[order])


def test_holm_does_not_count_what_is_absent():
    assert holm([0.02, np.nan, 0.03]) == pytest.approx([0.04, np.nan, 0.04], nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(tables, st.permutations(NAMES), st.randoms())
def test_order_of_seeds_and_strategies_does_not_matter(scores, names, random):
    seeds = random.sample(range(len(scores)), len(scores))
    pd.testing.assert_frame_equal(by_pair(all_pairs(scores)), by_pair(all_pairs(scores.iloc[seeds][names])))


@settings(deadline=None, max_examples=30)
@given(tables, st.floats(-100, 100))
def test_a_constant_added_to_all_changes_nothing(scores, constant):
    pd.testing.assert_frame_equal(all_pairs(scores), all_pairs(scores + constant), atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(tables)
def test_swapping_two_strategies_mirrors_their_difference(scores):
    pairs = by_pair(all_pairs(scores))
    forward, backward = pairs.loc[("a", "b")], pairs.loc[("b", "a")]
    assert forward["difference"] == pytest.approx(-backward["difference"])
    assert (forward["low"], forward["high"]) == pytest.approx((-backward["high"], -backward["low"]), nan_ok=True)
    assert (forward["wins"], forward["ties"]) == (backward["losses"], backward["ties"])


def test_only_seeds_that_both_finished_count():
    scores = pd.DataFrame({"a": [0.5, 0.6, np.nan, 0.7], "b": [0.4, np.nan, 0.5, 0.7], "c": [np.nan] * 4})
    pairs = by_pair(all_pairs(scores))
    assert tuple(pairs.loc[("a", "b"), ["n", "wins", "ties", "losses"]]) == (2, 1, 1, 0)
    assert pairs.loc[("a", "c"), "n"] == 0
    assert np.isnan(pairs.loc[("a", "c"), "p_holm"])
    assert pairs.loc[("a", "b"), "p_holm"] == 1.0  # two tests count, not six: 2 x 0.5


def test_tests_against_baselines_count_for_themselves():
    scores = pd.DataFrame({"a": np.arange(6) + 1.0, "b": np.arange(6) + 1.5, "c": np.zeros(6)})
    table = against_baselines(scores, {"a": "c", "b": "c"})
    assert table[["strategy", "against"]].values.tolist() == [["a", "c"], ["b", "c"]]
    assert table["p_holm"].tolist() == pytest.approx([2 / 64, 2 / 64])
    assert len(against_baselines(scores, {})) == 0


def test_the_win_matrix_counts_ties_half():
    scores = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.0, 2.0, 4.0, 3.0]})
    wins = win_matrix(all_pairs(scores), ["b", "a"])
    assert list(wins.index) == list(wins.columns) == ["b", "a"]
    assert wins.loc["a", "b"] == 0.625
    assert wins.loc["b", "a"] == 0.375
    assert np.isnan(wins.loc["a", "a"])
