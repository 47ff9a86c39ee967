import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kafal_pipeline.comparison.signed_rank import hodges_lehmann, p_greater, pairs_needed

# Hollander and Wolfe, Nonparametric Statistical Methods (1999), table 3.1: Hamilton's depression scale factor IV of
# nine patients at the first and at the second visit. Also the example of R's ?wilcox.test.
FIRST = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
SECOND = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
DEPRESSION = np.subtract(FIRST, SECOND)

differences = st.lists(st.integers(-6, 6), min_size=1, max_size=9)


def brute_force(values):
    """Enumerate all signs."""
    values = np.array([value for value in values if value != 0], dtype=float)
    if not len(values):
        return 1.0
    ranks = stats.rankdata(np.abs(values))
    found = ranks[values > 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=len(values))]
    return np.mean([total >= found - 1e-9 for total in sums])


def test_p_value_of_the_published_example():
    assert p_greater(DEPRESSION) == pytest.approx(0.01953, abs=5e-6)  # R: V = 40, p-value = 0.01953


def test_estimate_and_interval_of_the_published_example():
    found = hodges_lehmann(DEPRESSION, 0.95)
    assert found == pytest.approx((0.46, 0.010, 0.786))  # examples 3.3 and 3.4; the book's differences are negated


@settings(deadline=None)
@given(differences)
def test_p_value_is_that_of_all_signs(values):
    assert p_greater(values) == pytest.approx(brute_force(values))


@pytest.mark.parametrize("n", [5, 12, 30])
def test_without_ties_it_agrees_with_scipy(n):
    values = np.random.default_rng(n).normal(0.2, 1, n)
    assert p_greater(values) == pytest.approx(stats.wilcoxon(values, alternative="greater", method="exact").pvalue)


@settings(deadline=None)
@given(differences)
def test_the_two_directions_mirror_each_other(values):
    forward, backward = hodges_lehmann(values), hodges_lehmann([-value for value in values])
    assert forward.difference == pytest.approx(-backward.difference)
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low), nan_ok=True)


@settings(deadline=None)
@given(st.lists(st.integers(-100, 100), min_size=1, max_size=12), st.integers(-50, 50))
def test_the_estimate_moves_with_the_differences(values, shift):
    moved = hodges_lehmann([value + shift for value in values])
    assert moved == pytest.approx(tuple(bound + shift for bound in hodges_lehmann(values)), nan_ok=True)


@pytest.mark.parametrize(("n", "confidence"), [(6, 0.95), (7, 0.95), (9, 0.95), (8, 0.9), (8, 0.99)])
def test_the_interval_covers_at_least_as_often_as_asked_for(n, confidence):
    """Of all signs, which are equally likely where the centre is 0, so many intervals hold 0."""
    sizes = 2.0 ** np.arange(n)  # no two Walsh averages are equal
    intervals = [hodges_lehmann(np.array(signs) * sizes, confidence) for signs in itertools.product([-1, 1], repeat=n)]
    coverage = np.mean([low <= 0 <= high for _, low, high in intervals])
    assert confidence <= coverage < 1


def test_too_few_pairs_have_an_estimate_but_no_interval():
    estimate = hodges_lehmann([1, 2, 3, 4, 5])
    assert estimate.difference == 3
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_a_confidence_that_is_just_possible_has_an_interval():
    assert hodges_lehmann([1, 2, 3, 4, 5, 6], 1 - 2 / 2**6) == (3.5, 1, 6)
    assert math.isnan(hodges_lehmann([1, 2, 3, 4, 5, 6], 0.97).low)


def test_rounding_errors_are_ties():
    assert p_greater([0.1 + 0.2 - 0.3, 1.0]) == 0.5  # the first is 0 but for rounding


def test_what_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        p_greater([0.1, float("nan")])


@given(st.integers(1, 5000), st.sampled_from([0.01, 0.05, 0.1]))
def test_pairs_needed_is_the_smallest_number_that_can_show_anything(comparisons, alpha):
    n = pairs_needed(comparisons, alpha)
    assert comparisons * 0.5**n <= alpha * (1 + 1e-9)
    assert comparisons * 0.5 ** (n - 1) > alpha
