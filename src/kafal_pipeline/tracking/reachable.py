"""Checks that the tracker can be reached, before there is work to lose and without the seconds of importing mlflow.

Of a local store it is found out whether it can be written, without changing it; nothing goes over the network for it. A
server is asked for its ``/health``, without credentials: who answers that he does not know us is there.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import logging
import os
import socket
import sqlite3
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit, urlunsplit

from kafal_pipeline.common.errors import UserError, did_you_mean, masked
from kafal_pipeline.common.files import CannotWrite, check_writable
from kafal_pipeline.tracking.addresses import DATABASES, PATH, PORTS, kind_of

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that a server has to answer."""

SERVERS = ("http", "https")

DATABRICKS = "databricks"

MODELS_ONLY = ("databricks-uc", "uc")
"""Addresses at which MLflow keeps registered models; as those of a tracker it knows and refuses them."""

PLUGINS = "mlflow.tracking_store"
"""The entry points by which an installed package tells MLflow of a kind of address of its own."""

FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow's variable without which it refuses to keep runs in folders."""

DATABRICKS_CREDENTIALS = ("DATABRICKS_HOST", "DATABRICKS_RUNTIME_VERSION")
"""Variables of which one is set where Databricks can be spoken to: by its user, or on its own machines."""

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN")
"""Variables of which MLflow needs one where a server asks who it is."""


def address(config: TrackingConfig) -> str | None:
    """Return the tracker's address: the parameter, else the variable, else None, a store in the project's folder."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or None


def written(uri: str | None) -> dict[str, Any]:
    """Return what a journal says of the tracker's address: one with credentials is hidden.

    Examples
    --------
    >>> written("http://me:secret@host")
    {'uri': None, 'uri_hidden': True}
    """
    hidden = uri is not None and uri != masked(uri)
    return {"uri": None if hidden else uri, "uri_hidden": hidden}


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
        If it cannot be reached and is required; if its address is none that a tracker can have, in any case.
    """
    uri = address(config)
    given = "tracking.uri" if config.uri else "MLFLOW_TRACKING_URI" if uri else "tracking.uri and MLFLOW_TRACKING_URI"
    name = masked(uri) if uri else "in the project's folder (none is set)"
    if (wrong := mistake(uri)) is not None:
        raise UserError(f"{given}: found {name!r}: {wrong} Or record nothing: --params tracking=off.")
    found = problem(uri, project)
    if found is None:
        return
    what = f"{given}: the tracker {name} cannot be reached: {found}"
    later = f"python -m kafal_pipeline.tracking.deliver {journals}"
    if config.required:
        raise UserError(
            f"{what} Correct that; or run without it and deliver later what the run has recorded (--params "
            f"tracking.required=false, then {later}); or record nothing (--params tracking=off)."
        )
    logger.warning("%s The run continues and is recorded in its journal. To deliver it later: %s", what, later)


def mistake(uri: str | None) -> str | None:
    """Return, as sentences without credentials, why an address can never be a tracker's; None if it can.

    Such an address is a mistake in the configuration: waiting, or delivering later, would not mend it.

    Parameters
    ----------
    uri
        The address; None for MLflow's own choice.
    """
    if uri is None:
        return None
    try:
        parts, kind = urlsplit(uri), kind_of(uri)
        parts.port  # noqa: B018 - it is read, and may be no number, only now
    except ValueError as error:
        return f"it is no address ({masked(str(error))})."
    if kind == "sqlite":
        return _sqlite_mistake(uri)
    if kind in MODELS_ONLY:
        return f"MLflow keeps models there, but no runs. {_allowed(kind, [])}"
    plugins = [] if kind in {*SERVERS, *DATABASES, PATH, DATABRICKS} else _plugins()
    if kind in {*SERVERS, *DATABASES, PATH, DATABRICKS, *plugins}:
        return None
    server = " For a server, begin it with http:// or https://." if not uri.startswith(f"{kind}://") else ""
    return f"MLflow knows no tracker of the kind {kind!r}.{server} {_allowed(kind, plugins)}"


def _allowed(kind: str, plugins: list[str]) -> str:
    return f"{did_you_mean(kind, [*SERVERS, *DATABASES, PATH, DATABRICKS, *plugins])} A plain path is allowed too."


def _plugins() -> list[str]:
    """Return the kinds of address that installed packages have told MLflow of."""
    return [entry.name for entry in importlib.metadata.entry_points(group=PLUGINS)]


def _sqlite_mistake(uri: str) -> str | None:
    parts = urlsplit(uri)
    if parts.netloc or not uri.startswith(f"{parts.scheme}://"):
        file = f"{parts.netloc.rpartition('@')[2]}{parts.path}" or "mlflow.db"
        return f"a file follows after three slashes: sqlite:///{file}."
    if _database_file(parts) in {"", ":memory:"} or parse_qs(parts.query).get("mode") == ["memory"]:
        return "such a database is in memory and keeps nothing. Name a file: sqlite:///mlflow.db."
    return None


def _database_file(parts: SplitResult) -> str:
    return unquote(parts.path).removeprefix("/")


def problem(uri: str | None, project: Path) -> str | None:
    """Return, as a sentence without credentials, why a tracker cannot be reached; None if nothing is wrong.

    Parameters
    ----------
    uri
        Its address; None for MLflow's own choice, a store in the project's folder.
    project
        What relative addresses start from.
    """
    if (wrong := mistake(uri)) is not None:
        return wrong
    try:
        return _problem(uri, project)
    except OSError as error:  # a name that is too long, a folder that must not even be looked into
        return f"{error.filename or uri}: {error.strerror or error}. Name another place."


def _problem(uri: str | None, project: Path) -> str | None:
    parts, kind = urlsplit(uri or ""), PATH if uri is None else kind_of(uri)
    if kind in SERVERS:
        return _server(parts)
    if kind in PORTS:
        return _port(parts.hostname or "localhost", parts.port or PORTS[kind])
    if kind == DATABRICKS:
        return _databricks()
    return _local(uri, kind, project) if kind in {"sqlite", PATH} else None  # of a kind that only a plugin knows


def _local(uri: str | None, kind: str, project: Path) -> str | None:
    if uri is None:
        # MLflow 3's own choice: a folder where runs lie in one from before, else a database.
        if any(found.parent.name.isdigit() for found in (project / "mlruns").glob("*/meta.yaml")):
            return _runs_folder(project / "mlruns")
        return _database(project / "mlflow.db")
    parts = urlsplit(uri)
    if kind == "sqlite":
        return _database(project / _database_file(parts))
    return _runs_folder(project / (unquote(parts.path) if parts.scheme == PATH else uri))


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


def _databricks() -> str | None:
    profiles = Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()
    if profiles.is_file() or any(os.environ.get(name) for name in DATABRICKS_CREDENTIALS):
        return None
    return (
        f"there are no credentials for it: DATABRICKS_HOST is not set, and there is no file {profiles}. Set "
        "DATABRICKS_HOST and DATABRICKS_TOKEN, or write that file with: databricks configure."
    )


def _folder(path: Path) -> str | None:
    try:
        check_writable(path)
    except CannotWrite as error:
        return str(error)
    return None


def _database(path: Path) -> str | None:
    problem = _folder(path.parent)  # where sqlite makes the file, and its own journal beside one that is there
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
