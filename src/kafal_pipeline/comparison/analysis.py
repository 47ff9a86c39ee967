"""Computes all tables of a comparison from its runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.comparison import classes, curves, pairs
from kafal_pipeline.comparison.ranking import Ranking, rank
from kafal_pipeline.comparison.runs import FAILED, FINISHED, WAITING, RunTables
from kafal_pipeline.comparison.signed_rank import DECIMALS, pairs_needed
from kafal_pipeline.evaluation.curve import MACROS

FINAL_MEASURES = ("balanced_accuracy", *MACROS)
COSTS = ("train_seconds", "query_seconds", "evaluate_seconds", "bytes_sent", "skipped_client_rounds")


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. Shares, accuracies and differences are fractions of 1."""

    alpha: float  # level of the tests; intervals have the confidence ``1 - alpha``
    baselines: dict[str, str]  # the baseline of each strategy that has one
    scores: pd.DataFrame  # AULC, seeds by strategies; NaN for a failed run
    # one row a strategy, best mean AULC first: `n` finished runs, `failed` ones, `aulc`, `aulc_std`, `aulc_low`,
    # `aulc_high`, `final_accuracy`, `final_accuracy_std`, `mean_rank`
    summary: pd.DataFrame
    # the strategies with the best mean AULC, as `best_first` takes it: several if they are equal
    leaders: tuple[str, ...]
    # `against_baseline`, `pairs`, `wins`: see `against_baselines`, `all_pairs` and `win_matrix`
    against_baseline: pd.DataFrame
    pairs: pd.DataFrame
    wins: pd.DataFrame
    ranking: Ranking  # mean ranks with Friedman's test
    curves: pd.DataFrame  # `curves`, `gains`, `labels`: see `mean_curves`, `gains` and `labels_table`
    gains: pd.DataFrame
    labels: pd.DataFrame
    queried: pd.DataFrame  # `queried`, `class_accuracy`: strategies by classes
    class_accuracy: pd.DataFrame
    clients: pd.DataFrame  # see `client_accuracy`; empty without splits
    # one row a strategy: means over the seeds of `FINAL_MEASURES` after the last cycle; NaN where an earlier version of
    # the project made the runs, which did not measure it
    final_measures: pd.DataFrame
    # one row a strategy: of a run, the mean seconds and bytes, and how often a client was left out of a round
    costs: pd.DataFrame
    unfinished: dict[str, int]  # how many runs have failed, and how many wait for labels
    absent: dict[str, int]  # strategies none of whose runs finished, and how many runs that is; they are in no table
    lost_baseline: str | None  # the baseline's query, if it was to be run and none of its runs finished
    # by baseline none of whose runs finished, the strategies of its update, which nothing measures
    unmeasured: dict[str, tuple[str, ...]]

    @property
    def strategies(self) -> list[str]:
        """The strategies, best mean AULC first; `best_first` says over which seeds."""
        return [str(name) for name in self.summary.index]


def compare(
    tables: RunTables, *, baseline: str = "random", alpha: float = 0.05, targets: Sequence[float] = ()
) -> Comparison:
    """Compute everything that the report of a comparison shows.

    `baseline`: label of the query that the others are measured by, each under its own update. If no run has it, nothing
    is measured by a baseline. `alpha`: level of the tests, in (0, 1). `targets`: accuracies, as fractions, whose price
    in labels is asked for. Raises `UserError` if `alpha` or a target is not a fraction, or `baseline` is a query that
    nothing is called.
    """
    _check(tables, baseline, alpha, targets)
    cycles, confidence = tables.cycles, 1 - alpha
    last = cycles[cycles["cycle"] == cycles["cycle"].max()]
    scores = last.pivot(index="seed", columns="strategy", values="aulc")
    order = best_first(scores)
    finished = tables.runs["strategy"].isin(order)
    scores = scores[order]
    baselines = _baselines(tables, baseline)
    ranking = rank(scores, alpha)
    table = pairs.all_pairs(scores, confidence)
    return Comparison(
        alpha=alpha,
        baselines=baselines,
        scores=scores,
        summary=_summary(tables, scores, last, ranking, confidence),
        leaders=leaders(scores),
        against_baseline=pairs.against_baselines(scores, baselines, confidence),
        pairs=table,
        wins=pairs.win_matrix(table, order),
        ranking=ranking,
        curves=curves.mean_curves(cycles, confidence=confidence),
        gains=curves.gains(cycles, baselines, confidence),
        labels=curves.labels_table(cycles, targets, baselines),
        queried=classes.queried_classes(tables.classes).loc[order],
        class_accuracy=classes.class_accuracy(tables.classes).loc[order],
        clients=classes.client_accuracy(tables.classes, tables.clients),
        final_measures=last.groupby("strategy")[list(FINAL_MEASURES)].mean().loc[order],
        costs=cycles.groupby(["strategy", "seed"])[list(COSTS)].sum().groupby("strategy").mean().loc[order],
        unfinished={status: int((tables.runs["status"] == status).sum()) for status in (FAILED, WAITING)},
        absent={str(name): int(count) for name, count in tables.runs[~finished].groupby("strategy").size().items()},
        lost_baseline=baseline if baseline in set(tables.runs["query"]) - set(tables.runs["query"][finished]) else None,
        unmeasured=_unmeasured(tables, baseline, order),
    )


def best_first(scores: pd.DataFrame) -> list[str]:
    """Order strategies by their mean over the seeds that they share: seeds differ by more than strategies do.

    A strategy with less than half of the seeds that another has would leave too few, and comes last; so do all but the
    most complete ones where they share none. Names decide between means that are equal to `DECIMALS` decimals.

    `scores`: seeds by strategies, larger is better, NaN for a failed run.
    """
    means, enough = _means(scores)
    return sorted(map(str, scores.columns), key=lambda name: (name not in enough, -means[name], name))


def leaders(scores: pd.DataFrame) -> tuple[str, ...]:
    """Return the first strategy of `best_first`, and those whose mean over the same seeds equals its."""
    means, enough = _means(scores)
    order = best_first(scores)
    return tuple(name for name in order if name in enough and means[name] == means[order[0]])


def _means(scores: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """Return the rounded means that strategies are ordered by, and which strategies have seeds enough for that."""
    n = scores.count()
    means = scores.mean()
    for least in (n.max() / 2, n.max()):
        enough = [str(name) for name in n.index[n >= least]]
        shared = scores[enough].dropna()
        if len(shared):
            means = means.where(~means.index.isin(enough), shared.mean())
            break
    return means.round(DECIMALS), enough


def warnings(comparison: Comparison) -> list[str]:
    """Return the sentences that a reader of the statistics must not miss."""
    found = []
    failed, waiting = comparison.unfinished[FAILED], comparison.unfinished[WAITING]
    if waiting:
        found.append(
            f"{waiting} {'run waits' if waiting == 1 else 'runs wait'} for labels: this page lacks what is to come."
        )
    if failed:
        found.append(
            f"{failed} {'run' if failed == 1 else 'runs'} failed or did not finish. Two strategies are compared on the "
            "seeds that both finished; n says how many. The order is that on the seeds that strategies share, those "
            "with less than half of the seeds last; means and curves are over each one's own seeds."
        )
    if comparison.absent:
        names = ", ".join(f"{name} ({count})" for name, count in comparison.absent.items())
        found.append(f"None of the runs finished, and no table shows anything, of: {names}.")
    if comparison.lost_baseline is not None:
        found.append(f"The baseline {comparison.lost_baseline} has no finished run: nothing is compared with it.")
    else:
        found += [
            f"The baseline {lost} has no finished run. Not compared with a baseline: {', '.join(names)}."
            for lost, names in comparison.unmeasured.items()
        ]
    skipped = comparison.costs["skipped_client_rounds"]
    if skipped.any():
        names = ", ".join(str(name) for name in skipped.index[skipped > 0])
        found.append(
            f"Clients were left out of rounds because their training had failed, under {names}: those curves are not "
            "of the whole federation. The table of time and bytes says how often."
        )
    families = [(comparison.against_baseline, "tests against the baseline"), (comparison.pairs, "tests of all pairs")]
    for tests, name in families:
        count, seeds = pairs.tests_made(tests), int(tests["n"].max()) if len(tests) else 0
        needed = pairs_needed(count, comparison.alpha)
        if count and seeds < needed:
            found.append(
                f"Too few seeds for {count} {name}: with {seeds} {'seed' if seeds == 1 else 'seeds'} no adjusted "
                f"p-value can be {comparison.alpha:g} or less, however large the difference. {needed} are needed."
            )
    return found


def _check(tables: RunTables, baseline: str, alpha: float, targets: Sequence[float]) -> None:
    if not 0 < alpha < 1:
        raise UserError(f"alpha: found {alpha!r}; it must be between 0 and 1, such as 0.05.")
    wrong = [target for target in targets if not 0 < target <= 1]
    if wrong:
        raise UserError(f"targets: found {wrong[0]!r}; targets are accuracies as fractions in (0, 1], such as 0.9.")
    queries = set(tables.runs["query"])
    if baseline != "random" and baseline not in queries:
        raise UserError(f"baseline: no run has the query {baseline!r}. {did_you_mean(baseline, queries)}")


def _baselines(tables: RunTables, baseline: str) -> dict[str, str]:
    """Return the baseline of each strategy: the baseline's query under the strategy's own update."""
    finished = tables.runs[tables.runs["status"] == FINISHED].drop_duplicates("strategy")
    by_update = finished[finished["query"] == baseline].set_index("update")["strategy"].to_dict()
    others = finished[(finished["query"] != baseline) & finished["update"].isin(list(by_update))]
    return {
        str(strategy): str(by_update[update])
        for strategy, update in zip(others["strategy"], others["update"], strict=True)
    }


def _unmeasured(tables: RunTables, baseline: str, strategies: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the baselines that were to be run and never finished, each with the finished strategies of its update."""
    runs = tables.runs.drop_duplicates("strategy").set_index("strategy")
    lost = runs[(runs["query"] == baseline) & ~runs.index.isin(list(strategies))]["update"]
    found = {
        str(name): tuple(other for other in strategies if runs["update"][other] == lost[name]) for name in lost.index
    }
    return {name: others for name, others in found.items() if others}


def _summary(
    tables: RunTables, scores: pd.DataFrame, last: pd.DataFrame, ranking: Ranking, confidence: float
) -> pd.DataFrame:
    n, std = scores.count(), scores.std()
    half = [curves.half_width(*column, confidence) for column in zip(std, n, strict=True)]
    accuracy = last.groupby("strategy")["accuracy"]
    failed = tables.runs[tables.runs["status"] == FAILED].groupby("strategy").size()
    table = pd.DataFrame(
        {
            "n": n,
            "failed": failed.reindex(scores.columns, fill_value=0),
            "aulc": scores.mean(),
            "aulc_std": std,
            "aulc_low": scores.mean() - half,
            "aulc_high": scores.mean() + half,
            "final_accuracy": accuracy.mean(),
            "final_accuracy_std": accuracy.std(),
            "mean_rank": pd.Series(ranking.mean_ranks),
        }
    )
    return table.loc[scores.columns].rename_axis("strategy")
