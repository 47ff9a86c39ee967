"""Arrange how MLflow's pages show an experiment: accuracy over labels, a colour a strategy, AULC and final accuracy.

MLflow keeps a saved view as a tag of the experiment: its name is ``mlflow.sharedViewState.<key>``, its value what
MLflow's own page would write. A page whose address has ``viewStateShareKey=<key>`` opens the view, and the menu "Views"
lists it. A state may leave keys out, for which the page has defaults.
"""

from __future__ import annotations

import json
from typing import Any

KEY = "strategies"
"""The view's key, in its address and its tag."""

NAME = "Strategies: accuracy over labels"

NOTE = f"""\
**To compare strategies, choose "{NAME}" in the menu *Views* at the top right.**

- The chart view shows accuracy over the number of labels, a colour a strategy. The list view shows `aulc`, the area
  under that curve, and `final_accuracy`, with each strategy's mean over its seeds.
- A run is a strategy (query and update) with one seed. The step of its numbers is the number of labels; for those that
  begin with `train_round_` it is the round.
- A run named *comparison* has the report of `kedro run --pipeline compare` among its artifacts.
"""


def tags() -> dict[str, str]:
    """Return the tags of an experiment that hold the view and a short guide."""
    view = {"name": NAME, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state())}  # times are only shown
    return {"mlflow.note.content": NOTE, f"mlflow.sharedViewState.{KEY}": json.dumps(view)}


def page(experiment_id: str) -> str:
    """Return the view's address within a server's."""
    query = f"viewStateShareKey={KEY}&compareRunsMode=CHART&workflowType=machine_learning"
    return f"#/experiments/{experiment_id}/runs?{query}"


def state() -> dict[str, Any]:
    """Return what the page shows: runs, columns, charts and the sections in which they lie."""
    columns = ("metrics.`aulc`", "metrics.`final_accuracy`", "params.`query`", "params.`update`", "params.`seed`")
    return {
        "searchFilter": "tags.strategy != ''",  # comparisons have no learning curve
        "selectedColumns": columns,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "strategy"}]},
        "useGroupedValuesInCharts": False,  # MLflow averages at equal steps, and the seeds' may differ by a few labels
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [
            {
                **_chart("LINE", "accuracy", "curves"),
                "xAxisKey": "metric",
                "selectedXAxisMetricKey": "labels",
                "useGlobalXaxisKey": False,
                "lineSmoothness": 0,
                "displayPoints": True,
                "range": {},
                "scaleType": "linear",
                "yAxisKey": "metric",
                "yAxisExpressions": [],
            },
            _chart("BAR", "aulc", "scores"),
            _chart("BAR", "final_accuracy", "scores"),
        ],
        # Charts of all other metrics are added by the page, to the last two where they belong there.
        "compareRunSections": [
            _section("curves", "Accuracy over labels", columns=1),
            _section("scores", "Area under this curve, and final accuracy", columns=2),
            _section("model", "Model metrics", display=False),
            _section("system", "System metrics", display=False),
        ],
        "isAccordionReordered": True,  # else the page sorts the sections
    }


def _chart(kind: str, metric: str, section: str) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{KEY}-{metric}",
        "metricSectionId": f"{KEY}-{section}",
        "metricKey": metric,
        "isGenerated": False,
        "deleted": False,
        "runsCountToCompare": 100,  # as many as the page loads
    }


def _section(key: str, name: str, display: bool = True, **options: int) -> dict[str, Any]:
    return {"uuid": f"{KEY}-{key}", "name": name, "display": display, "isReordered": True, "deleted": False, **options}
