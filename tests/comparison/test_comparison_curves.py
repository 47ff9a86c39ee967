import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.comparison.curves import (
    REFERENCE,
    gains,
    labels_table,
    labels_to_reach,
    mean_curves,
)


@pytest.fixture
def cycles():
    rows = [
        *(("random", 0, 0.5, 0.6, 0.7), ("random", 1, 0.4, 0.5, 0.6)),
        *(("ksas", 0, 0.5, 0.8, 0.9), ("ksas", 1, 0.4, 0.5, 0.55)),
    ]
    return pd.DataFrame(
        [
            {"strategy": name, "seed": seed, "cycle": cycle, "labels": 100 * (cycle + 1), "accuracy": value}
            for name, seed, *values in rows
            for cycle, value in enumerate(values)
        ]
    ).assign(labelled_fraction=lambda table: table["labels"] / 1000)


def test_means_and_intervals_over_the_seeds(cycles):
    table = mean_curves(cycles).set_index(["strategy", "cycle"])
    row = table.loc[("ksas", 2)]
    assert (row["n"], row["labels"]) == (2, 300)
    assert row["mean"] == pytest.approx(0.725)
    assert row["std"] == pytest.approx(0.35 / math.sqrt(2))
    # R: qt(0.975, 1) = 12.7062
    assert (row["high"] - row["low"]) / 2 == pytest.approx(12.7062 * 0.175, rel=1e-5)


def test_one_seed_has_no_interval(cycles):
    table = mean_curves(cycles[cycles["seed"] == 0])
    assert table[["std", "low", "high"]].isna().all(axis=None)
    assert table["mean"].notna().all()


def test_gains_are_paired_by_seed(cycles):
    table = gains(cycles, {"ksas": "random"}).set_index("cycle")
    assert table["mean"].tolist() == pytest.approx([0.0, 0.1, 0.075])
    assert table["std"].tolist() == pytest.approx(np.array([0.0, 0.2, 0.25]) / math.sqrt(2))
    assert len(gains(cycles, {})) == 0


def test_gains_leave_out_seeds_without_their_baseline(cycles):
    without = cycles[(cycles["strategy"] == "ksas") | (cycles["seed"] == 0)]
    assert gains(without, {"ksas": "random"})["n"].tolist() == [1, 1, 1]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 1))
def test_labels_to_reach_is_the_first_time_the_curve_is_there(accuracy, target):
    labels = 100.0 * np.arange(1, len(accuracy) + 1)
    found = labels_to_reach(labels, accuracy, target)
    if math.isnan(found):
        assert max(accuracy) < target
        return
    grid = np.linspace(labels[0], found, 50)
    assert np.interp(found, labels, accuracy) >= target - 1e-9
    assert (np.interp(grid[:-1], labels, accuracy) <= target + 1e-9).all() or found == labels[0]


def test_labels_for_given_accuracies_say_what_was_not_reached(cycles):
    table = labels_table(cycles, [0.55, 0.85], {}).set_index(["strategy", "target"])
    assert tuple(table.loc[("random", "0.55"), ["n", "reached"]]) == (2, 2)
    assert table.loc[("random", "0.55"), "labels"] == pytest.approx((150 + 250) / 2)
    assert tuple(table.loc[("ksas", "0.85"), ["n", "reached"]]) == (2, 1)
    assert np.isnan(table.loc[("ksas", "0.85"), "labels"])  # one of two seeds never: no median
    assert REFERENCE not in table.index.get_level_values("target")


def test_the_baselines_accuracy_is_that_of_the_same_seed(cycles):
    table = labels_table(cycles, [], {"ksas": "random"})
    row = table[table["target"] == REFERENCE].iloc[0]
    assert (row["strategy"], row["n"], row["reached"]) == ("ksas", 2, 1)
    one_seed = labels_table(cycles[cycles["seed"] == 0], [], {"ksas": "random"}).iloc[0]
    assert one_seed["labels"] == pytest.approx(166.6667)
    assert one_seed["share"] == pytest.approx(166.6667 / 300)


def test_what_the_initial_pool_reaches_costs_at_most_its_labels(cycles):
    table = labels_table(cycles, [0.4, 0.45, 0.5], {"ksas": "random"}).set_index(["strategy", "target"])
    found = table.loc["random"]
    # Seed 0 begins with 0.5, seed 1 with 0.4: the median of a bound and a number is a bound.
    assert found["at_most"].tolist() == [True, True, True]
    assert found["labels"].tolist() == [100, pytest.approx(125), 150]
    one_seed = labels_table(cycles[cycles["seed"] == 1], [0.4, 0.45], {})
    assert one_seed["at_most"].tolist() == [True, False] * 2
    assert not table.loc[("ksas", REFERENCE), "at_most"]
    three = pd.concat([cycles, cycles[cycles["seed"] == 1].assign(seed=2)])
    assert labels_table(three, [0.45, 0.95], {})["at_most"].tolist() == [False] * 4  # the median is not the bound
    begun = cycles.assign(accuracy=cycles["accuracy"].where(cycles["strategy"] == "random", 1.0))
    row = labels_table(begun, [], {"ksas": "random"}).iloc[0]
    assert (row["labels"], row["share"], row["at_most"]) == (100, pytest.approx(1 / 3), True)
