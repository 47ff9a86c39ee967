"""Make and mend a store that is a sqlite file in the project's folder, which `mlflow ui` shows."""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import mlflow
from sqlalchemy.engine import URL, make_url

from kafal_pipeline.common.files import replacing
from kafal_pipeline.common.locks import alone

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of MLflow's tables that say where files lie."""


def make_sqlite(address: str) -> None:
    """Make the file of a sqlite store that is not there yet, all of it or nothing; leave others alone.

    MLflow makes the tables step by step, without a lock: two runs that begin at once, or a kill in between, would
    leave a store that nobody can open any more.
    """
    name = _sqlite_file(address)
    if not name or _filled(path := Path(name)):
        return
    with alone(path.with_name(f".{path.name}.lock")):
        if _filled(path):
            return
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
            draft = Path(folder, "draft.db")
            address = URL.create("sqlite", database=str(draft)).render_as_string()  # quoted, as a folder may have a %
            mlflow.MlflowClient(address).search_experiments(max_results=1)
            with (
                replacing(path) as temporary,
                closing(sqlite3.connect(draft)) as source,
                closing(sqlite3.connect(temporary)) as target,
            ):
                # A copy by sqlite itself is whole, whatever the connections that MLflow keeps have open.
                source.backup(target)


def follow_move(address: str, project: Path) -> None:
    """Correct where a sqlite store says that files lie, if they moved with its project: MLflow's own are absolute."""
    if not (name := _sqlite_file(address)):
        return
    with closing(sqlite3.connect(name, timeout=30)) as store, store:
        tables = {table for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for number, old in store.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
            new = str(project / "mlruns" / str(number))
            if old == new or not old.endswith(f"/mlruns/{number}") or (Path(old).is_dir() and not Path(new).is_dir()):
                continue  # of another project, or at a place of the user's choice
            for table, column in LOCATIONS:
                if table in tables:
                    store.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR "  # noqa: S608
                        f"substr({column}, 1, ?) = ?",  # nosec B608 - names of our own
                        (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
            logger.warning("The project's folder has moved: in %s, files in %s are now in %s", name, old, new)


def _sqlite_file(address: str) -> str | None:
    return make_url(address).database if address.startswith("sqlite") else None


def _filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
