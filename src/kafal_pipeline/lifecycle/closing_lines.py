"""Lines at the end of a run: what it reached, where its results lie, and the commands to try next."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kafal_pipeline.common.errors import masked
from kafal_pipeline.runs import provenance
from kafal_pipeline.tracking.addresses import SERVERS, kind_of, served_by_ui
from kafal_pipeline.tracking.progress import Progress

if TYPE_CHECKING:
    from kedro.pipeline.node import Node

    from kafal_pipeline.config import Config
    from kafal_pipeline.lifecycle.current_run import CurrentRun

TEXT = "closing_lines"
"""The dataset whose text is said last, whichever node puts it out."""

UI = "http://127.0.0.1:5000"
"""Address at which `mlflow ui` listens."""


class ClosingLines:
    """Keeps what is to be said until the run has ended: it is the last thing on the terminal."""

    def __init__(self, run: CurrentRun) -> None:
        self._run = run
        self._lines: Callable[[str | None], str] | None = None
        self._journals = Path()

    def after_node(self, node: Node, outputs: Mapping[str, Any]) -> None:
        """Keep a run's table, the address of a comparison, and what a node puts out as `TEXT`."""
        config, place = self._run.config, self._run.layout
        if TEXT in outputs:
            text = outputs[TEXT]
            self._lines = lambda _page: text
        elif node.name == "report.summarise":
            from kafal_pipeline.evaluation.table import format_table

            table = format_table(outputs["learning_curve"], provenance.processor_of(place))
            self._journals = place.journals
            self._lines = lambda page: f"{table}\n\n{next_steps(config, place.from_root.report, page)}"
        elif node.name == "compare.plan" and config.tracking.enabled:
            self._journals = place.comparison_journals(outputs["comparison_plan"].compare.name)
            self._lines = lambda page: aligned(side_by_side(config, page))

    def show(self) -> None:
        """Say it, with MLflow's page of the run if that is known by now."""
        if self._lines is not None:
            click.echo(f"\n{self._lines(Progress.newest_page(self._journals))}")
        self.forget()

    def forget(self) -> None:
        """Say nothing."""
        self._lines = None


def next_steps(config: Config, folder: Path | str, page: str | None = None) -> str:
    """Return the lines that say that a run's summary, tables and figures lie in `folder`, and what to try next.

    `page` is the address, within a server's, at which MLflow shows the run next to others, where it is known.
    """
    other = "ksas" if config.query.name == "random" else "random"
    steps = [
        ("Summary, tables, figures", str(folder)),
        ("Another query", f"kedro run --pipeline fal --params query={other}   (and this run's other options)"),
    ]
    if config.tracking.enabled:
        steps[1:1] = side_by_side(config, page)
    return aligned(steps)


def aligned(lines: Sequence[tuple[str, str]]) -> str:
    """Return names and what is said of them, in two columns."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {line}" for name, line in lines)


def side_by_side(config: Config, page: str | None) -> list[tuple[str, str]]:
    """Return the lines that say where MLflow shows runs side by side: by which command if by one, and on which page."""
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri and not served_by_ui(uri):
        server = masked(uri)
        return [("Runs side by side", f"{server.rstrip('/')}/{page}" if page and kind_of(uri) in SERVERS else server)]
    command = f"mlflow ui --backend-store-uri {masked(uri)}" if uri else "mlflow ui"
    return [("Runs side by side", command), *([("", f"{UI}/{page}")] if page else [])]
