"""Writes the report: the page, and every figure and table as a file of its own."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kafal_pipeline.common.files import write_json, write_text, write_with, writing
from kafal_pipeline.common.locks import alone
from kafal_pipeline.common.versions import versions as installed
from kafal_pipeline.comparison.analysis import Comparison, compare
from kafal_pipeline.comparison.classes import balance
from kafal_pipeline.comparison.report import figures
from kafal_pipeline.comparison.report.appearance import VARIABLES, looks
from kafal_pipeline.comparison.report.page import render
from kafal_pipeline.comparison.report.svg import inline_svg, svg_text
from kafal_pipeline.comparison.report.verdict import percent, verdict
from kafal_pipeline.comparison.runs import RunTables
from kafal_pipeline.evaluation.heatmap import heatmap

PAGE = "report.html"
FIGURES = (
    "learning_curves",
    "scores",
    "gains",
    "win_matrix",
    "critical_difference",
    "queried_classes",
    "class_accuracy",
)
"""Every figure that a report may have: which ones depends on its runs."""

KINDS = ("png", "svg")
MEASURES = "metrics"  # folder of a report with a small file for each strategy


def write_report(
    tables: RunTables,
    folder: Path,
    *,
    title: str | None = None,
    baseline: str = "random",
    alpha: float = 0.05,
    targets: Sequence[float] = (),
    versions: Mapping[str, str] | None = None,
) -> list[Path]:
    """Compare the runs and write the report.

    - `folder`: where to: ``report.html``, ``comparison.json`` with the scalars, ``metrics`` with a few for each
      strategy, figures as PNG and SVG, tables as CSV. Files of an earlier report are replaced, figures and strategies
      that this one does not have are removed, others stay. Another report that is being written there is waited for.
    - `title`: what was compared (default: the data set's name).
    - `baseline`, `alpha`, `targets`: see `compare`.
    - `versions`: what the runs were made with, by name (default: the packages as installed now, which says nothing
      about runs made earlier).

    Returns the files written, the page first. Raises `UserError` as `compare` does.
    """
    comparison = compare(tables, baseline=baseline, alpha=alpha, targets=targets)
    appearance = looks(comparison)
    drawn = draw(comparison, tables.class_names)
    texts = {name: svg_text(figure) for name, figure in drawn.items()}
    descriptions = _descriptions(comparison)
    inline = {
        name: inline_svg(texts[name], name=name, description=description, variables=VARIABLES)
        for name, description in descriptions.items()
        if name in texts
    }
    page = render(
        tables,
        comparison,
        title=title or str(tables.configuration["dataset.name"]),
        figures=inline,
        looks=appearance,
        versions=versions or installed(),
    )
    written = csv_tables(tables, comparison)
    place = folder.absolute()  # "." has no name
    with alone(place.with_name(f".{place.name}.lock")):
        for name, text in texts.items():
            write_text(folder / f"{name}.svg", text)
            write_with(folder / f"{name}.png", partial(drawn[name].savefig, format="png"))
        for name, (table, index) in written.items():
            write_text(folder / f"{name}.csv", table.to_csv(index=index, float_format="%.6g"))
        write_json(folder / "comparison.json", scalars(comparison), indent=2)
        measures = strategy_measures(comparison)
        for name, values in measures.items():
            write_json(folder / MEASURES / f"{name}.json", values, indent=2)
        write_text(folder / PAGE, page)
        # Of an earlier report of more runs; every table is always written.
        absent = [folder / f"{name}.{kind}" for name in FIGURES if name not in texts for kind in KINDS]
        absent += [path for path in (folder / MEASURES).glob("*.json") if path.stem not in measures]
        for path in absent:
            with writing(path):
                path.unlink(missing_ok=True)
    names = [PAGE, "comparison.json", *(f"{name}.csv" for name in written)]
    return [folder / name for name in (*names, *(f"{name}.{kind}" for name in texts for kind in KINDS))]


def draw(comparison: Comparison, class_names: Sequence[str]) -> dict[str, Figure]:
    """Draw every figure of a comparison, by the name of its files."""
    appearance, names = looks(comparison), comparison.strategies
    drawn = {
        "learning_curves": figures.learning_curves_figure(comparison, appearance),
        "scores": figures.scores_figure(comparison, appearance),
    }
    if len(comparison.gains):
        drawn["gains"] = figures.gains_figure(comparison, appearance)
    if len(names) > 1:
        drawn["win_matrix"] = figures.win_matrix_figure(comparison)
    if len(names) > 1 and comparison.ranking.n:
        drawn["critical_difference"] = figures.critical_difference_figure(comparison, appearance)
    drawn["queried_classes"] = _classes_figure(
        comparison.queried, class_names, "Classes of the labels that the queries bought, in %", "% of the bought labels"
    )
    drawn["class_accuracy"] = _classes_figure(
        comparison.class_accuracy, class_names, "Accuracy of each class after the last cycle, in %", "% right"
    )
    return drawn


def _classes_figure(shares: pd.DataFrame, class_names: Sequence[str], title: str, colour_bar: str) -> Figure:
    return heatmap(
        100 * shares.fillna(0).to_numpy(dtype="float64"),
        title=title,
        rows=[str(name) for name in shares.index],
        columns=class_names,
        rows_name="Strategie",  # an s follows
        colour_bar=colour_bar,
        text="{:.0f}",
    )


def csv_tables(tables: RunTables, comparison: Comparison) -> dict[str, tuple[pd.DataFrame, bool]]:
    """Return every table by the name of its file, and whether its index belongs into it."""
    names = dict(enumerate(tables.class_names))
    strategy, evenness = _unlike("strategy", tables.class_names), _unlike("balance", tables.class_names)
    queried = comparison.queried.rename(columns=names).rename_axis(strategy)
    accuracy = comparison.class_accuracy.rename(columns=names).rename_axis(strategy)
    ranks = comparison.summary[["mean_rank"]].sort_values("mean_rank")
    return {
        "ranking": (comparison.summary, True),
        "scores": (comparison.scores, True),
        "against_baseline": (comparison.against_baseline, False),
        "pairs": (comparison.pairs, False),
        "win_matrix": (comparison.wins, True),
        "critical_difference": (ranks.assign(critical_difference=comparison.ranking.critical_difference), True),
        "learning_curves": (comparison.curves, False),
        "gains": (comparison.gains, False),
        "labels_to_reach": (comparison.labels, False),
        "queried_classes": (queried.assign(**{evenness: balance(comparison.queried)}), True),
        "class_accuracy": (accuracy, True),
        "client_accuracy": (comparison.clients, False),
        "final_measures": (comparison.final_measures, True),
        "costs": (comparison.costs, True),
        "runs": (tables.runs, False),
    }


def _unlike(column: str, class_names: Sequence[str]) -> str:
    """Return the name of a column that stands next to those of the classes: with a ``_`` where a class is called so."""
    while column in class_names:
        column += "_"
    return column


def strategy_measures(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Return the few numbers by which each strategy is judged, those that are numbers: rows of `dvc metrics show`."""
    own = comparison.summary[["aulc", "aulc_std", "final_accuracy", "mean_rank"]]
    others = comparison.against_baseline.set_index("strategy")[["difference", "p_holm"]]
    table = own.join(others.rename(columns={"difference": "above_baseline"}))
    found = {
        str(name): {str(key): float(value) for key, value in row.dropna().items()} for name, row in table.iterrows()
    }
    labels = comparison.curves.groupby("strategy")["labels"].max()
    for name, values in found.items():
        values |= {"seeds": int(comparison.summary["n"][name]), "labels": round(float(labels[name]))}
    return found


def scalars(comparison: Comparison) -> dict[str, Any]:
    """Return what sums a comparison up, ready for JSON, without values that are not numbers, or a winner if none is."""
    found = verdict(comparison)
    ranking = comparison.ranking
    against = comparison.against_baseline.set_index("strategy")
    names = {"friedman_statistic": "statistic", "friedman_p": "p", "critical_difference": "critical_difference"}
    return {
        **({} if found.winner is None else {"winner": found.winner}),
        "verdict": found.strength,
        "title": found.title,
        "seeds": len(comparison.scores),
        **_numbers({key: getattr(ranking, name) for key, name in names.items()}),
        **{key: _numbers(comparison.summary[key].to_dict()) for key in ("aulc", "final_accuracy")},
        "above_baseline": _numbers(against["difference"].to_dict()),
        "p_holm": _numbers(against["p_holm"].to_dict()),
    }


def _numbers(values: Mapping[Any, float]) -> dict[str, float]:
    return {str(key): float(value) for key, value in values.items() if math.isfinite(value)}


def _descriptions(comparison: Comparison) -> dict[str, str]:
    """Return what is read out instead of each figure on the page."""
    best = ", ".join(f"{name} {percent(comparison.summary['aulc'][name])}" for name in comparison.strategies[:6])
    return {
        "learning_curves": f"Mean accuracy over number of labels. Highest areas under the curve: {best}.",
        "gains": "Mean difference in accuracy to the baseline over number of labels, for the strategies that have one.",
        "scores": f"AULC of every run, with means and intervals. The best means: {best}.",
        "critical_difference": "Mean ranks, best first: "
        + ", ".join(f"{name} {rank:.2f}" for name, rank in list(comparison.ranking.mean_ranks.items())[:10])
        + f". Critical difference {comparison.ranking.critical_difference:.2f}.",
    }
