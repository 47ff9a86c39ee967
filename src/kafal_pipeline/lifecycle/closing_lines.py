"""Text at the end of a run: where its results lie, and the commands to try next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.common.errors import masked
from kafal_pipeline.tracking.addresses import served_by_ui

if TYPE_CHECKING:
    from kafal_pipeline.config import Config


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
        lines.insert(0, ("Not finished", f"{summary['cycles']} of {trial['cycles']} cycles; its command resumes it"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {line}" for name, line in lines)


def _tracking_page(uri: str | None) -> str:
    """Return the command that shows what lies in a database or a folder, or the address of any other tracker."""
    if not uri:
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {masked(uri)}" if served_by_ui(uri) else masked(uri)
