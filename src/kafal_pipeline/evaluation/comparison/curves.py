"""Learning curves over the seeds, and how many labels an accuracy costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "baseline's final accuracy"
"""The target that differs from seed to seed: what the strategy's baseline reached in the end on the same seed."""


def mean_curves(cycles: pd.DataFrame, measure: str = "accuracy", confidence: float = 0.95) -> pd.DataFrame:
    """Average the learning curves of each strategy over its seeds.

    Parameters
    ----------
    cycles
        One row a run and cycle: `strategy`, `seed`, `cycle`, `labels`, `labelled_fraction` and the measure.
    measure
        The column to average.
    confidence
        Of the interval of the mean (Student's t).

    Returns
    -------
    pandas.DataFrame
        One row a strategy and cycle: `strategy`, `cycle`, `n`, mean `labels` and `labelled_fraction`, and the measure's
        `mean`, `std` (of a sample), `low` and `high`; the last three are NaN for a single seed.
    """
    groups = cycles.groupby(["strategy", "cycle"], sort=True)
    table = groups.agg(
        n=("seed", "size"),
        labels=("labels", "mean"),
        labelled_fraction=("labelled_fraction", "mean"),
        mean=(measure, "mean"),
        std=(measure, "std"),
    ).reset_index()
    half = [half_width(std, n, confidence) for std, n in zip(table["std"], table["n"], strict=True)]
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def gains(cycles: pd.DataFrame, baselines: Mapping[str, str], confidence: float = 0.95) -> pd.DataFrame:
    """Average the differences in accuracy between each strategy and its baseline, paired by seed and cycle.

    Parameters
    ----------
    cycles
        As for `mean_curves`.
    baselines
        The baseline of each strategy that has one; the others are left out.
    confidence
        Of the interval of the mean difference (Student's t).

    Returns
    -------
    pandas.DataFrame
        The columns of `mean_curves`, with the differences in `mean`, `std`, `low` and `high`.
    """
    paired = cycles[cycles["strategy"].isin(list(baselines))]
    paired = paired.assign(baseline=paired["strategy"].map(dict(baselines)))
    other = cycles[["strategy", "seed", "cycle", "accuracy"]]
    other = other.rename(columns={"strategy": "baseline", "accuracy": "baseline_accuracy"})
    paired = paired.merge(other, on=["baseline", "seed", "cycle"])
    return mean_curves(paired.assign(gain=paired["accuracy"] - paired["baseline_accuracy"]), "gain", confidence)


def half_width(std: float, n: int, confidence: float = 0.95) -> float:
    """Return half the width of Student's interval of a mean; NaN for fewer than two values.

    Examples
    --------
    >>> round(half_width(1.0, 10), 4)
    0.7154
    """
    from scipy.stats import t  # noqa: PLC0415 - a second to import

    return float(t.ppf((1 + confidence) / 2, n - 1) * std / math.sqrt(n)) if n > 1 else math.nan


def labels_to_reach(labels: ArrayLike, accuracy: ArrayLike, target: float) -> float:
    """Return the number of labels at which a learning curve first reaches `target`, interpolated between cycles.

    Returns
    -------
    float
        NaN if the curve never reaches it. A curve that begins above it costs at most its first number of labels, which
        is returned.

    Examples
    --------
    >>> labels_to_reach([100, 200, 300], [0.5, 0.7, 0.6], 0.6)
    150.0
    >>> labels_to_reach([100, 200, 300], [0.5, 0.7, 0.6], 0.8)
    nan
    """
    x, y = np.asarray(labels, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    reached = np.flatnonzero(y >= target)
    if not reached.size:
        return math.nan
    end = int(reached[0])
    if end == 0:
        return float(x[0])
    share = (target - y[end - 1]) / (y[end] - y[end - 1])
    return float(x[end - 1] + share * (x[end] - x[end - 1]))


def labels_table(cycles: pd.DataFrame, targets: Sequence[float], baselines: Mapping[str, str]) -> pd.DataFrame:
    """Say how many labels each strategy needs for given accuracies and for its baseline's final one.

    Parameters
    ----------
    cycles
        One row a run and cycle.
    targets
        Accuracies as fractions.
    baselines
        The baseline of each strategy that has one; for others the row `REFERENCE` is left out.

    Returns
    -------
    pandas.DataFrame
        One row a strategy and target: `strategy`, `target` (a fraction as text, or `REFERENCE`), `n` seeds, how many of
        them `reached` it, the median of `labels` over the seeds, and the median of their `share` of the labels that the
        baseline bought. A seed that did not reach the target counts as more labels than any other; the median is NaN,
        "not reached", if it falls on such seeds.
    """
    import pandas as pd  # noqa: PLC0415 - half a second to import

    runs = {key: run.sort_values("cycle") for key, run in cycles.groupby(["strategy", "seed"])}
    rows = []
    for strategy in cycles["strategy"].unique():
        seeds = [seed for name, seed in runs if name == strategy]
        for target in targets:
            found = [_reach(runs[strategy, seed], target) for seed in seeds]
            rows.append((strategy, f"{target:g}", *_median(found), math.nan))
        baseline = baselines.get(strategy)
        pairs = [(runs[strategy, seed], runs[baseline, seed].iloc[-1]) for seed in seeds if (baseline, seed) in runs]
        if pairs:
            found = [_reach(run, last["accuracy"]) for run, last in pairs]
            shares = [count / last["labels"] for count, (_, last) in zip(found, pairs, strict=True)]
            rows.append((strategy, REFERENCE, *_median(found), _median(shares)[2]))
    return pd.DataFrame(rows, columns=["strategy", "target", "n", "reached", "labels", "share"])


def _reach(run: pd.DataFrame, target: float) -> float:
    return labels_to_reach(run["labels"], run["accuracy"], target)


def _median(found: Sequence[float]) -> tuple[int, int, float]:
    """Return how many values there are, how many of them are numbers, and the median with NaN above all numbers."""
    values = np.asarray(found, dtype=np.float64)
    median = float(np.median(np.where(np.isnan(values), np.inf, values)))
    return len(values), int(np.isfinite(values).sum()), median if math.isfinite(median) else math.nan
