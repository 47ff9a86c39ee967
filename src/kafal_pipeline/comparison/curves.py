"""Learning curves over the seeds, and how many labels an accuracy costs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import t

REFERENCE = "baseline's final accuracy"  # on the same seed: a target that differs from seed to seed


def mean_curves(cycles: pd.DataFrame, measure: str = "accuracy", confidence: float = 0.95) -> pd.DataFrame:
    """Average the learning curves of each strategy over its seeds.

    `cycles`: one row a run and cycle: `strategy`, `seed`, `cycle`, `labels`, `labelled_fraction` and the `measure`.
    Returns one row a strategy and cycle: `strategy`, `cycle`, `n`, mean `labels` and `labelled_fraction`, and the
    measure's `mean`, `std` (of a sample) and Student's interval `low` to `high`; these three are NaN for a single seed.
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
    """Average the differences in accuracy between strategies and their baselines as `mean_curves` does accuracy.

    Paired by seed and cycle; strategies without a baseline are left out.
    """
    paired = cycles[cycles["strategy"].isin(list(baselines))]
    paired = paired.assign(baseline=paired["strategy"].map(dict(baselines)))
    other = cycles[["strategy", "seed", "cycle", "accuracy"]]
    other = other.rename(columns={"strategy": "baseline", "accuracy": "baseline_accuracy"})
    paired = paired.merge(other, on=["baseline", "seed", "cycle"])
    return mean_curves(paired.assign(gain=paired["accuracy"] - paired["baseline_accuracy"]), "gain", confidence)


def half_width(std: float, n: int, confidence: float = 0.95) -> float:
    """Return half the width of Student's interval of a mean; NaN for fewer than two values.

    >>> round(half_width(1.0, 10), 4)
    0.7154
    """
    return float(t.ppf((1 + confidence) / 2, n - 1) * std / math.sqrt(n)) if n > 1 else math.nan


def labels_to_reach(labels: ArrayLike, accuracy: ArrayLike, target: float) -> float:
    """Return the number of labels at which a learning curve first reaches `target`, interpolated between cycles.

    NaN if it never does; the first number of labels, a bound, if it begins above it.

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

    Returns one row a strategy and target: `strategy`, `target` (a fraction as text, or, for strategies that have a
    baseline, `REFERENCE`), `n` seeds, how many of them `reached` it, the median of `labels` over the seeds, the median
    of their `share` of the labels that the baseline bought, and whether these medians are `at_most`, because they fall
    on seeds whose initial pool reaches the target. A seed that did not reach the target counts as more labels than any
    other; the median is NaN, "not reached", if it falls on such seeds.
    """
    runs = {key: run.sort_values("cycle") for key, run in cycles.groupby(["strategy", "seed"])}
    rows = []
    for strategy in cycles["strategy"].unique():
        seeds = [seed for name, seed in runs if name == strategy]
        for target in targets:
            found = [_reach(runs[strategy, seed], target) for seed in seeds]
            n, reached, labels, at_most = _median(found)
            rows.append((strategy, f"{target:g}", n, reached, labels, math.nan, at_most))
        baseline = baselines.get(strategy)
        pairs = [(runs[strategy, seed], runs[baseline, seed].iloc[-1]) for seed in seeds if (baseline, seed) in runs]
        if pairs:
            found = [_reach(run, last["accuracy"]) for run, last in pairs]
            shares = [(count / last["labels"], begun) for (count, begun), (_, last) in zip(found, pairs, strict=True)]
            n, reached, labels, at_most = _median(found)
            _, _, share, share_at_most = _median(shares)
            rows.append((strategy, REFERENCE, n, reached, labels, share, at_most or share_at_most))
    return pd.DataFrame(rows, columns=["strategy", "target", "n", "reached", "labels", "share", "at_most"])


def _reach(run: pd.DataFrame, target: float) -> tuple[float, bool]:
    """Return `labels_to_reach`, and whether the curve begins at the target or above, so that this is a bound."""
    return labels_to_reach(run["labels"], run["accuracy"], target), bool(run["accuracy"].iloc[0] >= target)


def _median(found: Sequence[tuple[float, bool]]) -> tuple[int, int, float, bool]:
    """Return how many values there are, how many are numbers, the median with NaN above all, and whether it is a bound.

    It is one if it would be less with less in place of the values that are bounds themselves.
    """
    values, bounds = np.array([value for value, _ in found]), np.array([bound for _, bound in found])
    values = np.where(np.isnan(values), np.inf, values)
    median, least = float(np.median(values)), float(np.median(np.where(bounds, 0.0, values)))
    n, reached = len(values), int(np.isfinite(values).sum())
    return (n, reached, median, least < median) if math.isfinite(median) else (n, reached, math.nan, False)
