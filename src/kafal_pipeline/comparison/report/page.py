"""Renders the page: one HTML file that needs no other file."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import pandas as pd

from kafal_pipeline.comparison.analysis import Comparison, warnings
from kafal_pipeline.comparison.classes import balance, client_spread
from kafal_pipeline.comparison.curves import REFERENCE
from kafal_pipeline.comparison.pairs import tests_made
from kafal_pipeline.comparison.report import appearance, verdict
from kafal_pipeline.comparison.report.figures import FEWEST_SEEDS, MOST_BANDS
from kafal_pipeline.comparison.report.panels import HEIGHT, WIDTH, panels
from kafal_pipeline.comparison.runs import FAILED, FINISHED, WAITING, RunTables

MOST_CLASSES = 60
"""With more classes than this, the page shows those on which the strategies differ most, and the CSV has them all."""


def render(
    tables: RunTables,
    comparison: Comparison,
    *,
    title: str,
    figures: Mapping[str, str],
    looks: Mapping[str, appearance.Look],
    versions: Mapping[str, str],
) -> str:
    """Return the page.

    `tables`, `comparison`: what is reported. `figures`: by name, elements of `inline_svg`. `versions`: name and version
    of what the runs were made with.
    """
    here = resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        **{"percent": verdict.percent, "points": verdict.points, "p": verdict.p_value},
        **{"seconds": _seconds, "bytes": _bytes, "json": _json},
    }
    template = environment.from_string(here.joinpath("report.html.jinja").read_text(encoding="utf-8"))
    shown = _shown_classes(comparison.class_accuracy)
    return template.render(
        title=title,
        css=here.joinpath("report.css").read_text(encoding="utf-8"),
        variables=appearance.VARIABLES,
        verdict=verdict.verdict(comparison),
        warnings=warnings(comparison),
        comparison=comparison,
        confidence=f"{100 * (1 - comparison.alpha):g}{verdict.SPACE}%",
        looks=looks,
        figures=figures,
        bands=comparison.curves["n"].max() >= FEWEST_SEEDS,
        many_bands=sum(look.highlighted for look in looks.values()) > MOST_BANDS,
        rows=_rows(comparison),
        baseline_tests=tests_made(comparison.against_baseline),
        pair_tests=tests_made(comparison.pairs),
        targets=_targets(comparison.labels, comparison.strategies),
        panels=panels(comparison, looks) if len(looks) > appearance.HIGHLIGHTED + 1 else [],
        panel_size=(WIDTH, HEIGHT),
        pairs={(row["strategy"], row["against"]): row for row in _records(comparison.pairs)},
        classes=[(index, tables.class_names[index]) for index in shown],
        all_classes=len(tables.class_names),
        balance=balance(comparison.queried),
        clients=client_spread(comparison.clients) if len(comparison.clients) else None,
        failed=tables.runs[tables.runs["status"] == FAILED].to_dict("records"),
        waiting=tables.runs[tables.runs["status"] == WAITING].to_dict("records"),
        finished=int((tables.runs["status"] == FINISHED).sum()),
        seeds=sorted(comparison.scores.index),
        configuration=tables.configuration,
        strategies=tables.strategies,
        versions=versions,
    )


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the lines of the ranking, each with its test against the baseline and the labels it needs."""
    tests = {row["strategy"]: row for row in _records(comparison.against_baseline)}
    reference = {row["strategy"]: row for row in _records(comparison.labels) if row["target"] == REFERENCE}
    return [
        {**row, "test": tests.get(row["strategy"]), "labels": reference.get(row["strategy"])}
        for row in _records(comparison.summary.reset_index())
    ]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _targets(labels: pd.DataFrame, strategies: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by target and strategy what each accuracy costs, without the baseline's own."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _records(labels[labels["target"] != REFERENCE]):
        found.setdefault(row["target"], {})[row["strategy"]] = row
    return {target: {name: rows[name] for name in strategies} for target, rows in found.items()}


def _shown_classes(accuracy: pd.DataFrame) -> list[int]:
    columns = [int(column) for column in accuracy.columns]
    if len(columns) <= MOST_CLASSES:
        return columns
    spread = (accuracy.max() - accuracy.min()).fillna(0.0)
    return sorted(int(column) for column in spread.nlargest(MOST_CLASSES).index)


def _seconds(value: float) -> str:
    """Return a duration as people say it.

    >>> _seconds(0.42), _seconds(75), _seconds(7300)
    ('0.42 s', '75 s', '2.0 h')
    """
    if value < 10:
        return f"{value:.2f} s"
    if value < 600:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _bytes(value: float) -> str:
    """Return an amount of data in units of 1000.

    >>> _bytes(161816864), _bytes(12)
    ('161.8 MB', '12.0 B')
    """
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}"


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
