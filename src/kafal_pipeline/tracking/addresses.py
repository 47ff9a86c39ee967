"""Kinds of address that a tracker can have, told apart without importing mlflow."""

from __future__ import annotations

from urllib.parse import urlsplit

SERVERS = ("http", "https")
PATH = "file"  # a plain path, relative or absolute
SHOWN_BY_UI = ("sqlite", "postgresql", "mysql", "mssql", PATH)
NAMES = ("databricks", "databricks-uc", "uc")  # they have no scheme and could be folders


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
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if uri in NAMES:
        return uri
    return PATH if len(scheme) <= 1 else scheme  # a drive's letter is no scheme


def served_by_ui(uri: str) -> bool:
    """Tell whether ``mlflow ui --backend-store-uri`` can show what lies at an address."""
    return kind_of(uri) in SHOWN_BY_UI
