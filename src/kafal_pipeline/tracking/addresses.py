"""Kinds of address that a tracker can have, told apart without importing mlflow."""

from __future__ import annotations

from urllib.parse import urlsplit

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""Databases with a server that MLflow can keep runs in, and where they listen if their address does not say."""

DATABASES = ("sqlite", *PORTS)
"""Databases that MLflow can keep runs in; a driver may follow, ``postgresql+psycopg2``."""

PATH = "file"
"""What the kind of a plain path, relative or absolute, is called."""

NAMES = ("databricks", "databricks-uc", "uc")
"""Addresses that MLflow takes for a name, though they have no scheme and could be folders."""


def kind_of(uri: str) -> str:
    """Return the kind of an address: its scheme without a database's driver, `PATH` where it is a plain path.

    Raises
    ------
    ValueError
        If it is no address, such as one of an unclosed bracket.

    Examples
    --------
    >>> [kind_of(uri) for uri in ("https://host", "mysql+pymysql://host/runs", "mlruns", "C:/runs", "databricks")]
    ['https', 'mysql', 'file', 'file', 'databricks']
    """
    scheme = urlsplit(uri).scheme
    if uri in NAMES:
        return uri
    if len(scheme) <= 1:  # a drive's letter is no scheme
        return PATH
    database, plus, driver = scheme.partition("+")
    return database if plus and database in DATABASES and driver and "+" not in driver else scheme


def served_by_ui(uri: str) -> bool:
    """Tell whether ``mlflow ui --backend-store-uri`` can show what lies at an address: a database or a folder.

    Examples
    --------
    >>> [served_by_ui(uri) for uri in ("sqlite:///runs.db", "mlruns", "https://host", "databricks")]
    [True, True, False, False]
    """
    return kind_of(uri) in {*DATABASES, PATH}
