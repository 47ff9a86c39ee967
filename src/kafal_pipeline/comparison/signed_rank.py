"""Wilcoxon's signed-rank test and the estimate that belongs to it, exact for every number of pairs and with ties.

SciPy's exact p-values hold without ties, and it has neither the Hodges-Lehmann estimate nor its interval. Differences
that agree to `DECIMALS` decimals count as equal, so that rounding errors neither make nor break ties.

Source: M. Hollander, D. A. Wolfe, Nonparametric Statistical Methods, 2nd ed., Wiley 1999, sections 3.1-3.3.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

DECIMALS = 10


class Estimate(NamedTuple):
    """A difference and its confidence interval; NaN where the pairs are too few for one."""

    difference: float
    low: float
    high: float


def p_greater(differences: ArrayLike) -> float:
    """Return the exact p-value, in [2^-n, 1], of the one-sided test whether n differences exceed 0 by chance alone.

    Zeros are dropped (Wilcoxon's way, also R's; 1 if none is left), ties get the mean of their ranks, and the p-value
    is the share of the 2^n equally likely assignments of signs whose rank sum is at least as large as the one found.

    >>> p_greater([1.0, 2.0, 3.0])
    0.125
    >>> p_greater([0.0, -1.0])
    1.0
    """
    values = _rounded(differences)
    values = values[values != 0]
    if not values.size:
        return 1.0
    doubled = np.rint(2 * rankdata(np.abs(values))).astype(np.int64)  # whole numbers with ties too
    statistic = int(doubled[values > 0].sum())
    return float(min(1.0, _rank_sums(doubled)[statistic:].sum()))


def hodges_lehmann(differences: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the median of the Walsh averages and its exact two-sided confidence interval.

    The Walsh averages are the means of all pairs of differences, zeros too, each with itself included. The interval is
    the smallest one between two of them, equally far from both ends, that covers the centre of symmetry with at least
    the confidence asked for (as R's ``wilcox.test(conf.int=TRUE)``). With ties or zeros it covers at least as often. It
    is NaN where even the widest one does not reach the confidence: n < 6 for 95 %. All is NaN without pairs.

    >>> hodges_lehmann([1, 2, 3, 4, 5, 6])
    Estimate(difference=3.5, low=1.0, high=6.0)
    """
    values = _rounded(differences)
    if not values.size:
        return Estimate(math.nan, math.nan, math.nan)
    first, second = np.triu_indices(values.size)
    walsh = np.sort((values[first] + values[second]) / 2)
    centre = float(np.median(walsh))
    below = np.cumsum(_rank_sums(2 * np.arange(1, values.size + 1))[::2])  # P(rank sum <= 0), P(<= 1), ...
    end = int(np.searchsorted(below, (1 - confidence) / 2 + 1e-12))  # its place among the averages
    if end == 0:
        return Estimate(centre, math.nan, math.nan)
    return Estimate(centre, float(walsh[end - 1]), float(walsh[-end]))


def pairs_needed(comparisons: int, alpha: float) -> int:
    """Return the fewest pairs with which the best of so many comparisons can get a Holm-adjusted p-value of `alpha`.

    With n pairs no p-value is below 2^-n, and Holm multiplies the smallest by the number of comparisons.

    >>> pairs_needed(1, 0.05), pairs_needed(6, 0.05), pairs_needed(1560, 0.05)
    (5, 7, 15)
    """
    return math.ceil(math.log2(max(comparisons, 1) / alpha) - 1e-12)


def _rounded(differences: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(differences, dtype=np.float64).round(DECIMALS)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"differences must be a vector of finite numbers, found shape {values.shape}: {values}")
    return values


def _rank_sums(ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of each sum 0, 1, ... of the ranks, each of which counts or not with probability 1/2."""
    probabilities: NDArray[np.float64] = np.zeros(int(ranks.sum()) + 1)
    probabilities[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(probabilities)
        shifted[rank:] = probabilities[:-rank]
        probabilities = (probabilities + shifted) / 2
    return probabilities
