"""Exceptions for mistakes in the user's input, as opposed to mistakes in the code."""

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


class Waiting(UserError):
    """A run waits for something that is no mistake, such as labels by people; the same command resumes it.

    The command line prints the message and exits with code 75 (EX_TEMPFAIL of sysexits.h).
    """


class NotAllowed(ValueError):
    """A class returned or did what is not allowed; whoever called it adds which class, client and cycle."""


def kind_of(found: object) -> str:
    """Return what something is, for messages: its type, and of arrays and tensors what they hold and their shape.

    >>> kind_of(None), kind_of([1])
    ('None', 'an object of type list')
    """
    if hasattr(found, "shape") and hasattr(found, "dtype"):
        return f"{type(found).__name__} of {found.dtype} of shape {tuple(found.shape)}"
    return "None" if found is None else f"an object of type {type(found).__name__}"


def did_you_mean(found: object, allowed: Iterable[str]) -> str:
    """Return the sentence that lists what is allowed, led by the closest name where one is close.

    >>> did_you_mean("ksass", ["random", "ksas"])
    "Did you mean 'ksas'? Allowed: ksas, random."
    >>> did_you_mean(3, ["random"])
    'Allowed: random.'
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(str(found), names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}."


def allowed_instead(message: str) -> str:
    """Return what is allowed where pydantic says that a value is not, without what it says of its own parsing.

    >>> allowed_instead("Input should be a valid integer, unable to parse string as an integer")
    'a whole number'
    >>> allowed_instead("Unable to parse input string as an integer, exceeded maximum size")
    'a whole number, not as large as this one'
    >>> allowed_instead("Input should be greater than 0")
    'greater than 0'
    """
    if "exceeded maximum size" in message:
        return "a whole number, not as large as this one"
    wanted = message[:1].lower() + message[1:]
    wanted = wanted.removeprefix("input should be ").replace("string should match pattern", "what matches the pattern")
    kind = re.match("a valid (integer|number|boolean)", wanted)
    return {"integer": "a whole number", "number": "a number", "boolean": "true or false"}[kind[1]] if kind else wanted


def masked(text: str) -> str:
    """Return `text` without the user, the password and the secret options of any address in it.

    >>> masked("https://me:secret@tracking.example.org/mlflow")
    'https://***@tracking.example.org/mlflow'
    >>> masked("mssql://host/runs?password=secret&timeout=5")
    'mssql://host/runs?password=***&timeout=5'
    """
    return _IN_QUERY.sub(r"\1***", _USERINFO.sub("://***@", text))
