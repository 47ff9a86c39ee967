"""What the program says when the mistake is in its input, not in its code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_USERINFO = re.compile(r"://[^/\s]+@")
_IN_QUERY = re.compile(r"([?&;](?:password|passwd|pwd|secret|token|api_?key|access_?key)=)[^&;\s]+", re.IGNORECASE)


class UserError(Exception):
    """A mistake in a parameter, a file or a data set that the user can mend.

    The message names the file and the key, what was found, what is allowed and what to do. The command line prints it
    without a traceback and exits with code 1; Python callers catch it like any exception.
    """


def did_you_mean(found: object, allowed: Iterable[str]) -> str:
    """Return the sentence that lists what is allowed, led by the closest name where one is close.

    Examples
    --------
    >>> did_you_mean("ksass", ["random", "ksas"])
    "Did you mean 'ksas'? Allowed: ksas, random."
    >>> did_you_mean(3, ["random"])
    'Allowed: random.'
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(str(found), names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}."


def masked(text: str) -> str:
    """Return `text` without the user, the password and the secret options of any address in it.

    Examples
    --------
    >>> masked("https://me:secret@tracking.example.org/mlflow")
    'https://***@tracking.example.org/mlflow'
    >>> masked("mssql://host/runs?password=secret&timeout=5")
    'mssql://host/runs?password=***&timeout=5'
    """
    return _IN_QUERY.sub(r"\1***", _USERINFO.sub("://***@", text))
