"""Whether the tracker can be reached, found out before there is work to lose, and without mlflow's seconds of import.

A local store is only looked at; nothing goes over the network for it. An address is asked for its ``/health``, without
credentials: who answers that he does not know us is there.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from kafal_pipeline.errors import UserError, masked
from kafal_pipeline.files import CannotWrite, check_writable

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a server has to answer."""

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases that MLflow can keep runs in, and where they listen if their address does not say."""

HOSTED = ("databricks", "databricks-uc", "uc")
"""Addresses that are names to MLflow."""

FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow's variable without which it refuses to keep runs in folders."""

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")
"""Variables of which MLflow needs one where a server asks who it is."""


def address(config: TrackingConfig) -> str | None:
    """Return the tracker's address: the parameter, else the variable, else None, a store in the project's folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def check(config: TrackingConfig, project: Path, journals: Path) -> None:
    """Check that the tracker can be reached, or warn that it cannot where ``tracking.required`` is false.

    Parameters
    ----------
    config
        The section ``tracking``.
    project
        The project's folder, where a local store lies.
    journals
        The folder of the journals that are to be delivered later if the tracker cannot be reached.

    Raises
    ------
    UserError
        If it cannot be reached and is required.
    """
    uri = address(config)
    found = problem(uri, project)
    if found is None:
        return
    given = "tracking.uri" if config.uri else "MLFLOW_TRACKING_URI" if uri else "tracking.uri and MLFLOW_TRACKING_URI"
    name = masked(uri) if uri else "in the project's folder (none is set)"
    what = f"{given}: the tracker {name} cannot be reached: {found}"
    later = f"python -m kafal_pipeline.tracking.deliver {journals}"
    if config.required:
        raise UserError(
            f"{what} Mend that; or go on without it and deliver later what the run has recorded (--params "
            f"tracking.required=false, then {later}); or record nothing (--params tracking=off)."
        )
    logger.warning("%s The run goes on and is recorded in its journal. To deliver it later: %s", what, later)


def problem(uri: str | None, project: Path) -> str | None:
    """Return, as a sentence without credentials, why a tracker cannot be reached; None if nothing is wrong.

    Parameters
    ----------
    uri
        Its address; None for MLflow's own choice, a store in the project's folder.
    project
        What relative addresses start from.
    """
    try:
        parts = urlsplit(uri or "")
        host, port = parts.hostname or "localhost", parts.port
    except ValueError as error:
        return f"it is no address ({masked(str(error))})."
    kind = parts.scheme.partition("+")[0].lower()
    if kind in {"http", "https"}:
        return _server(parts)
    if kind in PORTS:
        return _port(host, port or PORTS[kind])
    if uri is None or kind in {"sqlite", "file"} or (len(kind) <= 1 and uri not in HOSTED):
        return _local(uri, kind, unquote(parts.path), project)
    return None  # of a kind that only MLflow knows


def _server(parts: SplitResult) -> str | None:
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/health", "", ""))
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):  # noqa: S310 # nosec B310 - an http(s) address
            return None
    except urllib.error.HTTPError as error:
        return _refusal(error, has_credentials=bool(parts.username))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return None  # it is there; whom to trust is told to MLflow, by variables of its own
        if isinstance(reason, TimeoutError):
            return f"it does not answer within {PATIENCE:.0f} s. Is the server overloaded, or a firewall between?"
        return f"{masked(str(reason))}. Is the server running, and the address right?"


def _refusal(error: urllib.error.HTTPError, has_credentials: bool) -> str | None:
    known = has_credentials or any(os.environ.get(name) for name in CREDENTIALS)
    if error.code in {http.client.UNAUTHORIZED, http.client.FORBIDDEN} and not known:
        return (
            "it asks for credentials. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN."
        )
    if error.code < http.client.INTERNAL_SERVER_ERROR:
        return None  # it wants the password, or does not know this page: it is there
    return f"it answers {error.code} {error.reason}. Look at the server's log."


def _port(host: str, port: int) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=PATIENCE):
            return None
    except OSError as error:
        return f"no database answers at {host}, port {port} ({error}). Is it running, and the address right?"


def _local(uri: str | None, kind: str, path: str, project: Path) -> str | None:
    if uri is None:
        # MLflow 3's own choice: a folder where runs lie in one from before, else a database.
        if any(found.parent.name.isdigit() for found in (project / "mlruns").glob("*/meta.yaml")):
            return _runs_folder(project / "mlruns")
        return _folder(project) or _database(project / "mlflow.db")
    if kind == "sqlite":
        path = path.removeprefix("/")
        return _database(project / path) if path not in {"", ":memory:"} else None
    return _runs_folder(project / (path if kind == "file" else uri))  # a drive's letter is no kind of address


def _folder(path: Path) -> str | None:
    try:
        check_writable(path)
    except CannotWrite as error:
        return str(error)
    return None


def _database(path: Path) -> str | None:
    problem = _folder(path) or _folder(path.parent)  # sqlite puts its own journal beside the file
    if problem is not None or not path.exists():
        return problem
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)
        try:
            connection.execute("PRAGMA schema_version")
            connection.execute("BEGIN IMMEDIATE")  # what a writer begins with; nothing is changed
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.Error as error:
        if "locked" in str(error):
            return f"{path} is locked: another program writes to it. Wait, or stop it."
        return f"{path} cannot be written as a sqlite database ({error}). Move it away, or name another file."
    return None


def _runs_folder(path: Path) -> str | None:
    if os.environ.get(FOLDERS_ALLOWED, "").lower() not in {"true", "1"}:
        return (
            f"MLflow keeps runs in a folder ({path}) only where {FOLDERS_ALLOWED}=true is set. Set it, or name a "
            "database: sqlite:///mlflow.db."
        )
    return _folder(path)
