"""Compares strategies with each other, paired by seed.

The scores of a comparison are a table with a row for each seed and a column for each strategy; NaN stands for a run
that failed. A pair of strategies is compared on the seeds that both finished.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from kafal_pipeline.comparison.signed_rank import DECIMALS, hodges_lehmann, p_greater

PAIR_COLUMNS = ("strategy", "against", "n", "wins", "ties", "losses", "difference", "low", "high", "p", "p_holm")


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values adjusted for their number by Holm's step-down method (1979).

    The k-th smallest of m is multiplied by m - k + 1; none gets smaller than one before it, none larger than 1. NaNs
    stay and do not count. SciPy has no Holm; the tests check this one against R's ``p.adjust``.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]  # NaNs sort last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return adjusted


def all_pairs(scores: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Compare every strategy with every other one, in both directions; Holm counts all of these tests."""
    return _compare(scores, list(permutations(scores.columns, 2)), confidence)


def against_baselines(scores: pd.DataFrame, baselines: Mapping[str, str], confidence: float = 0.95) -> pd.DataFrame:
    """Compare every strategy with its baseline; Holm counts these tests only, since they were chosen beforehand."""
    pairs = [(strategy, baselines[strategy]) for strategy in scores.columns if strategy in baselines]
    return _compare(scores, pairs, confidence)


def tests_made(table: pd.DataFrame) -> int:
    """Return how many tests a table of pairs has: those of strategies that share a seed. Holm counts no others."""
    return int(table["p"].notna().sum())


def win_matrix(pairs: pd.DataFrame, strategies: Sequence[str]) -> pd.DataFrame:
    """Return the share of seeds on which the row's strategy beats the column's, of `all_pairs`; a tie counts half."""
    shares = (pairs["wins"] + pairs["ties"] / 2) / pairs["n"].where(pairs["n"] > 0)
    table = pairs.assign(share=shares).pivot(index="strategy", columns="against", values="share")
    return table.reindex(index=list(strategies), columns=list(strategies)).astype(float)


def _compare(scores: pd.DataFrame, pairs: Sequence[tuple[str, str]], confidence: float) -> pd.DataFrame:
    """Return one row a pair with `PAIR_COLUMNS`: `strategy` minus `against`, tested for being greater than 0."""
    rows = [_row(scores, strategy, against, confidence) for strategy, against in pairs]
    table = pd.DataFrame(rows, columns=list(PAIR_COLUMNS[:-1]))
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=np.float64)))


def _row(scores: pd.DataFrame, strategy: str, against: str, confidence: float) -> tuple[object, ...]:
    found = (scores[strategy] - scores[against]).dropna().to_numpy()
    differences = np.round(found, DECIMALS)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    n = len(differences)
    p = p_greater(differences) if n else float("nan")
    return strategy, against, n, wins, n - wins - losses, losses, *hodges_lehmann(differences, confidence), p
