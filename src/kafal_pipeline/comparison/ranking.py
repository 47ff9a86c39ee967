"""Mean ranks over the seeds, Friedman's test of all strategies at once, and Nemenyi's critical difference.

Source: J. Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006), 1-30.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import studentized_range

from kafal_pipeline.comparison.signed_rank import DECIMALS


@dataclass(frozen=True)
class Ranking:
    """Where the strategies stand on average; rank 1 is the best."""

    mean_ranks: dict[str, float]  # by strategy, best first; equal scores share the mean of their ranks
    n: int  # seeds that count: those that every strategy finished
    # `statistic`, `p`: Friedman's chi-squared, corrected for ties, and its p-value; NaN below 3 strategies or 2 seeds
    statistic: float
    p: float
    # Nemenyi's: two strategies whose mean ranks differ by less are not told apart. NaN without a seed
    critical_difference: float

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The largest groups, of at least two, within which no mean ranks differ by the critical difference."""
        names, ranks = list(self.mean_ranks), list(self.mean_ranks.values())
        groups: list[tuple[str, ...]] = []
        last_end = 0
        for start in range(len(names)):
            end = start + 1
            while end < len(names) and ranks[end] - ranks[start] < self.critical_difference:
                end += 1
            if end - start > 1 and end > last_end:
                groups.append(tuple(names[start:end]))
                last_end = end
        return groups


def rank(scores: pd.DataFrame, alpha: float = 0.05) -> Ranking:
    """Rank strategies by their scores (seeds by strategies, larger is better) on the seeds that all of them have."""
    complete = scores.dropna()
    n, k = complete.shape
    if n == 0:
        return Ranking({name: math.nan for name in scores.columns}, 0, math.nan, math.nan, math.nan)
    values = np.round(complete.to_numpy(), DECIMALS)
    means = stats.rankdata(-values, axis=1).mean(axis=0)
    order = sorted(range(k), key=lambda index: (means[index], str(scores.columns[index])))
    statistic, p = math.nan, math.nan
    if k > 2 and n > 1 and (np.ptp(values, axis=1) > 0).any():
        statistic, p = map(float, stats.friedmanchisquare(*values.T))
    mean_ranks = {str(scores.columns[index]): float(means[index]) for index in order}
    return Ranking(mean_ranks, n, statistic, p, critical_difference(k, n, alpha))


def critical_difference(strategies: int, seeds: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference ``q sqrt(k (k + 1) / (6 N))`` of k strategies on N seeds.

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    if strategies < 2 or seeds < 1:
        return math.nan
    q = studentized_range.ppf(1 - alpha, strategies, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(strategies * (strategies + 1) / (6 * seeds)))
