"""Messages for failures of the surroundings: too little memory, and files that are missing or of the wrong kind."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import ADVICE, dangling

MEMORY_NAMES = ("MemoryError", "_ArrayMemoryError", "OutOfMemoryError")
"""Exceptions of Python, NumPy and PyTorch, by name: to import PyTorch for its own would take seconds."""

MEMORY_TEXT = re.compile(r"can't allocate memory|not enough memory|out of memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)
"""In what PyTorch says as a RuntimeError."""

READING = "Give yourself the permission to read it, on every folder down to it too (chmod -R u+rX)"


def users_mistake(error: BaseException | None) -> UserError | None:
    """Return the user's mistake behind an error: Kedro wraps what reading a dataset raises."""
    return next((cause for cause in _causes(error) if isinstance(cause, UserError)), None)


def of_system(error: BaseException | None, doing: str | None = None) -> UserError | None:
    """Return, as a message, that memory is short or that a file is not what it should be; None if it is neither.

    The reason is the error or one that caused it; `doing` is the node that ran, if any did.
    """
    causes = list(_causes(error))
    for cause in causes:
        if _is_about_memory(cause):
            return _short_memory(cause, doing)
    return next((_strange_file(cause) for cause in causes if isinstance(cause, OSError) and _file_of(cause)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_about_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    named = any(kind.__name__ in MEMORY_NAMES for kind in type(error).__mro__)
    return named or (isinstance(error, RuntimeError) and MEMORY_TEXT.search(str(error)) is not None)


def _short_memory(error: BaseException, doing: str | None) -> UserError:
    """Return the message; of what PyTorch says, the sentence on the size is kept and its C++ frames are not."""
    said = next(iter(str(error).strip().splitlines()), "")
    said = said[max(0, said.find("DefaultCPUAllocator")) :].split(". ")[0].rstrip(".")[:200]
    return UserError(
        f"Out of memory{f' in {doing}' if doing else ''}{f' ({said})' if said else ''}. The model, training.batch_size "
        "and training.processes decide how much is needed: lower one of them, or end other programs, and give the "
        "command again."
    )


def _file_of(error: OSError) -> str | None:
    """Return the file that an error is about: of two, as in a renaming, the one that was to be replaced."""
    found = error.filename2 or error.filename
    return found if isinstance(found, str) and found else None


def _strange_file(error: OSError) -> UserError:
    path = Path(str(_file_of(error)))
    with suppress(PermissionError):  # of a folder that may not be entered
        if (broken := dangling(path)) is not None:
            return UserError(broken)
    if isinstance(error, PermissionError) and not os.access(path, os.R_OK):
        return UserError(f"{path}: {error.strerror}. {READING}, and give the same command again.")
    advice = ADVICE.get(error.errno or 0, "Move away what is there, or make what is missing")
    return UserError(f"{path}: {error.strerror or type(error).__name__}. {advice}, and give the same command again.")
