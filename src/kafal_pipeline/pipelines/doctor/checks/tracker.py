"""Whether the tracker answers, and takes what the run will tell it."""

from __future__ import annotations

import os
import socket
import sqlite3
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kafal_pipeline.errors import masked
from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

CHECK = "tracker"
PATIENCE = 5.0
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow knows, and where they listen."""

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")
ADVICE = (
    "Start it, or mend tracking.uri or MLFLOW_TRACKING_URI. A run loses nothing meanwhile (docs/tracking.md); or do "
    "without: --params tracking=off."
)
FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow's variable without which it refuses to keep runs in folders."""

LOCKED = "Another program writes to it: wait, or stop it."


def check(tracking: TrackingConfig, root: Path) -> Finding:
    """Look at the tracker without importing mlflow; nothing is written to it."""
    if not tracking.enabled:
        return Finding(CHECK, OK, "off: nothing is recorded")
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or _default(root)
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in {"http", "https"}:
        return _server(uri)
    if scheme == "sqlite":
        return _sqlite(uri, root)
    if scheme in PORTS:
        return _database(uri, PORTS[scheme])
    if scheme in {"", "file"} and uri != "databricks":  # which is a name to MLflow, not a folder's
        return _runs_folder(root / unquote(urlsplit(uri).path))
    return Finding(
        CHECK, WARNING, f"{masked(uri)} cannot be checked from here", "Open it as you would to look at runs."
    )


def _default(root: Path) -> str:
    """Return what MLflow 3 takes: a folder where there is one with runs from before, else a database."""
    older = any(path.parent.name.isdigit() for path in (root / "mlruns").glob("*/meta.yaml"))
    return "mlruns" if older else "sqlite:///mlflow.db"


def _server(uri: str) -> Finding:
    parts = urlsplit(uri)
    own = bool(parts.username) or any(os.environ.get(name) for name in CREDENTIALS)
    # Without the credentials: whether it answers can be seen without showing them to anybody.
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    shown = masked(uri)
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=PATIENCE):  # nosec B310  # http or https
            return Finding(CHECK, OK, f"{shown} answers")
    except urllib.error.HTTPError as error:
        if error.code in {401, 403} and own:
            return Finding(CHECK, OK, f"{shown} answers, and asks for credentials, which are set")
        if error.code in {401, 403}:
            advice = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            return Finding(CHECK, FAILURE, f"{shown} asks for credentials", advice)
        if error.code >= 500:
            return Finding(CHECK, FAILURE, f"{shown} answers with an error of its own ({error.code})", ADVICE)
        # Some servers have no such page: they answer, which is all that can be asked of them here.
        return Finding(CHECK, OK, f"{shown} answers")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return Finding(
            CHECK, FAILURE, f"{shown} does not answer within {PATIENCE:.0f} s ({masked(str(reason))})", ADVICE
        )


def _database(uri: str, port: int) -> Finding:
    parts = urlsplit(uri)
    try:
        with socket.create_connection((parts.hostname or "localhost", parts.port or port), PATIENCE):
            return Finding(CHECK, OK, f"{masked(uri)} answers; whether it lets you in shows at the run's start")
    except (OSError, ValueError) as error:
        return Finding(CHECK, FAILURE, f"{masked(uri)} does not answer ({error})", ADVICE)


def _sqlite(uri: str, root: Path) -> Finding:
    path = root / unquote(urlsplit(uri).path.removeprefix("/"))
    if not path.is_file():
        return _folder(path.parent, str(path), f"{path} does not exist yet and is made by the first run")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)
        try:
            connection.execute("PRAGMA schema_version")
            connection.execute("BEGIN IMMEDIATE")  # what a writer begins with; nothing is changed
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.Error as error:
        advice = LOCKED if "locked" in str(error) else f"Give it back its permissions, or move it away. {ADVICE}"
        return Finding(CHECK, FAILURE, f"{path} cannot be written to ({error})", advice)
    return Finding(CHECK, OK, f"{path} can be written to")


def _runs_folder(folder: Path) -> Finding:
    if os.environ.get(FOLDERS_ALLOWED, "").lower() not in {"true", "1"}:
        found = f"MLflow keeps runs in a folder ({folder}) only where {FOLDERS_ALLOWED}=true is set"
        advice = "Move them to a database (mlflow migrate-filestore), or set the variable."
        return Finding(CHECK, FAILURE, found, advice)
    return _folder(folder, str(folder))


def _folder(folder: Path, shown: str, found: str | None = None) -> Finding:
    """Check the nearest folder that exists: the others are made by the run."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Finding(CHECK, FAILURE, f"{shown}: {nearest} cannot be written to", ADVICE)
    return Finding(CHECK, OK, found or f"{folder} can be written to")
