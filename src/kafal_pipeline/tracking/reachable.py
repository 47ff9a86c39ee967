"""Checks that the tracker can be reached, before there is work to lose.

A server must answer, a local store must be writable; neither takes the seconds of importing mlflow, and nothing is
changed. At any other address, the helper's program tries it, and MLflow says what is wrong.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import sqlite3
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from kafal_pipeline.common.errors import UserError, masked
from kafal_pipeline.common.files import CannotWrite, check_writable
from kafal_pipeline.tracking.addresses import PATH, SERVERS, kind_of
from kafal_pipeline.tracking.helper import environment

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds that a server has to answer
TRIAL = 60.0  # seconds in which MLflow must have reached a tracker of another kind
FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # without it, MLflow refuses to keep runs in folders
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")  # MLflow needs one where a server asks who it is
SQLITE_FILE = re.compile(r"sqlite(\+\w+)?:///(?!:memory:|file:|\?).")
IN_MEMORY = "it names no file, and a database in memory keeps nothing. Name one so: sqlite:///mlflow.db."


def address(config: TrackingConfig) -> str | None:
    """Return the tracker's address: the parameter, else the variable, else None, a store in the project's folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def check(config: TrackingConfig, project: Path, journals: Path) -> None:
    """Check that the tracker can be reached, or warn that it cannot where ``tracking.required`` is false.

    `journals` is the folder that the message says to deliver later.

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
            f"{what} Correct that; or run without it and deliver later what the run has recorded (--params "
            f"tracking.required=false, then {later}); or record nothing (--params tracking=off)."
        )
    logger.warning("%s The run continues and is recorded in its journal. To deliver it later: %s", what, later)


def problem(uri: str | None, project: Path) -> str | None:
    """Return, as a sentence without credentials, why a tracker cannot be reached; None if nothing is wrong.

    An address of None is MLflow's own choice. Relative ones start from the folder `project`.
    """
    if uri is None:  # a folder where runs lie in one from before, else a database
        uri = "mlruns" if any((project / "mlruns").glob("[0-9]*/meta.yaml")) else "sqlite:///mlflow.db"
    try:
        kind, path = kind_of(uri), unquote(urlsplit(uri).path)
        if kind in SERVERS:
            return _server(uri)
        if kind == "sqlite":
            return _database(project / path.removeprefix("/")) if SQLITE_FILE.match(uri) else IN_MEMORY
        if kind == PATH:
            return _folder(project / (path if urlsplit(uri).scheme == PATH else uri))
        return _ask_mlflow(uri, project)
    except CannotWrite as error:
        return str(error)
    except (OSError, ValueError) as error:  # a name that is too long, a port that is no number
        return f"{masked(str(error))}. Name another place."


def _server(uri: str) -> str | None:
    """Ask for its ``/health`` without credentials: who answers that he does not know us is there."""
    parts = urlsplit(uri)
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], f"{parts.path.rstrip('/')}/health", "", ""))
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):  # noqa: S310 # nosec B310 - an http(s) address
            return None
    except urllib.error.HTTPError as error:
        known = parts.username or any(os.environ.get(name) for name in CREDENTIALS)
        if error.code in {http.client.UNAUTHORIZED, http.client.FORBIDDEN} and not known:
            return f"it asks for credentials. Set {CREDENTIALS[0]} and MLFLOW_TRACKING_PASSWORD, or {CREDENTIALS[1]}."
        failed = error.code >= http.client.INTERNAL_SERVER_ERROR
        return f"it answers {error.code} {error.reason}. Look at the server's log." if failed else None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return None  # it is there; whom to trust is told to MLflow, by variables of its own
        return f"{masked(str(reason))}. Is the server running, and the address right?"


def _database(path: Path) -> str | None:
    check_writable(path.parent)  # where sqlite makes the file, and its own journal next to one that is there
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as store:
            store.execute("PRAGMA schema_version")
            store.execute("BEGIN IMMEDIATE")  # what a writer begins with; nothing is changed
    except sqlite3.Error as error:
        return f"{path} cannot be written as a sqlite database ({error}). Stop what uses it, or name another file."
    return None


def _folder(path: Path) -> str | None:
    if os.environ.get(FOLDERS_ALLOWED, "").lower() not in {"true", "1"}:
        return (
            f"MLflow keeps runs in a folder ({path}) only where {FOLDERS_ALLOWED}=true is set. Set it, or name a "
            "database: sqlite:///mlflow.db."
        )
    check_writable(path)
    return None


def _ask_mlflow(uri: str, project: Path) -> str | None:
    command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver", "--check"]
    try:
        done = subprocess.run(
            command, cwd=project, env=environment(uri), capture_output=True, text=True, timeout=TRIAL, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it does not answer within {TRIAL:.0f} s."
    return (done.stdout or done.stderr[-500:]).strip() if done.returncode else None
