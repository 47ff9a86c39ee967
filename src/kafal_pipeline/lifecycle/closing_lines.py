"""Text at the end of a run: where its results lie, and the commands to try next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kafal_pipeline.common.errors import masked
from kafal_pipeline.tracking.addresses import SERVERS, kind_of, served_by_ui

if TYPE_CHECKING:
    from kafal_pipeline.config import Config

UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens."""


def next_steps(config: Config, folder: Path | str, page: str | None = None) -> str:
    """Return the lines that say where this run's results lie and what to try next.

    Parameters
    ----------
    config
        The run's configuration.
    folder
        The folder of the run's summary, tables and figures.
    page
        The address, within a server's, at which MLflow shows this run next to others, where it is known.
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
    """Return the lines that say where MLflow shows runs side by side: by which command if by one, and at which address.

    Parameters
    ----------
    config
        The runs' configuration.
    page
        The address within a server's, where it is known.
    """
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri and not served_by_ui(uri):
        server = masked(uri)
        return [("Runs side by side", f"{server.rstrip('/')}/{page}" if page and kind_of(uri) in SERVERS else server)]
    command = f"mlflow ui --backend-store-uri {masked(uri)}" if uri else "mlflow ui"
    return [("Runs side by side", command), *([("", f"{UI}/{page}")] if page else [])]
