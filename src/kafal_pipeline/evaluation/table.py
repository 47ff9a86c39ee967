"""Text at the end of a run: the learning curve as a table, and the commands to try next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.addresses import served_by_ui
from kafal_pipeline.errors import masked

if TYPE_CHECKING:
    import pandas as pd

    from kafal_pipeline.config import Config

PERCENT_COLUMNS = {
    "share": "labelled_fraction",
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "AULC": "aulc",
}


def format_table(curve: pd.DataFrame) -> str:
    """Return the learning curve as a ruled table of plain text, one line a cycle, and one about skipped clients if any.

    Examples
    --------
    >>> import pandas as pd
    >>> measures = {"labelled_fraction": 0.1, "accuracy": 0.65, "balanced_accuracy": 0.6, "aulc": 0.65}
    >>> print(format_table(pd.DataFrame([{"cycle": 0, "labels": 143, **measures}])))
    cycle  labels    share  accuracy  balanced accuracy     AULC
    -----  ------  -------  --------  -----------------  -------
        0     143  10.00 %   65.00 %            60.00 %  65.00 %
    """
    header = ["cycle", "labels", *PERCENT_COLUMNS]
    lines = [
        [str(int(row["cycle"])), f"{int(row['labels']):,}", *(_percent(row[key]) for key in PERCENT_COLUMNS.values())]
        for _, row in curve.iterrows()
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    table = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, rule, *lines)
    ]
    return "\n".join([*table, *_skipped(curve)])


def _skipped(curve: pd.DataFrame) -> list[str]:
    """Return the line about clients that were left out of rounds, if any were."""
    counts = curve.get("skipped_client_rounds")
    if counts is None or not counts.any():
        return []
    cycles = ", ".join(str(cycle) for cycle in curve["cycle"][counts > 0])
    return [
        "",
        f"Clients left out of rounds because their training had failed: {counts.sum():,} times, in cycles {cycles} "
        "(the column `failed` of rounds.parquet says which).",
    ]


def _percent(fraction: float) -> str:
    return "-" if fraction != fraction else f"{100 * fraction:.2f} %"  # noqa: PLR0124 - only NaN differs from itself


def next_steps(config: Config, folder: Path | str) -> str:
    """Return the lines that say where this run's results lie and what to try next.

    Parameters
    ----------
    config
        The run's configuration.
    folder
        The folder of the run's summary, tables and figures.
    """
    other = "ksas" if config.query.name == "random" else "random"
    steps = [
        ("Summary, tables, figures", str(folder)),
        ("Another query", f"kedro run --pipeline fal --params query={other}   (and this run's other options)"),
    ]
    if config.tracking.enabled:
        steps.insert(
            1, ("Runs side by side", _tracking_page(config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")))
        )
    width = max(len(name) for name, _ in steps)
    return "\n".join(f"{name.ljust(width)}  {step}" for name, step in steps)


def format_trial(summary: Mapping[str, Any], folder: Path | str) -> str:
    """Return the lines about a trial that another machine has done: its speed and memory, and where the report lies.

    Parameters
    ----------
    summary
        The report's summary: `cost` and `trial` are read.
    folder
        Its folder.
    """
    cost, trial = summary["cost"], summary["trial"]
    gpu = f", {cost['peak_gpu_memory_mb']:,.0f} MB on the GPU" if "peak_gpu_memory_mb" in cost else ""
    lines = [
        ("Training", f"{cost['samples_per_second']:,.0f} samples/s ({trial['device']}, {trial['precision']})"),
        ("Most memory", f"{cost['peak_memory_mb']:,.0f} MB{gpu}"),
        ("Summary, tables, figures", str(folder)),
    ]
    if not trial["finished"]:
        lines.insert(0, ("Not finished", f"{summary['cycles']} of {trial['cycles']} cycles; its command goes on"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {line}" for name, line in lines)


def _tracking_page(uri: str | None) -> str:
    """Return the command that shows what lies in a database or a folder, or the address of any other tracker."""
    if not uri:
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {masked(uri)}" if served_by_ui(uri) else masked(uri)
