"""Reports a mistake in a user's own query or update: its class, client and cycle, and the user's own lines."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from kafal_pipeline.common.errors import UserError

OURS = "kafal_pipeline"
FRAMES = 3
"""Of the user's own lines, the innermost ones that a message shows."""


@contextlib.contextmanager
def blamed(kind: str, strategy: object, where: str) -> Iterator[None]:
    """Run a strategy's code; what goes wrong in a class that is not this package's is an error for the user.

    Parameters
    ----------
    kind
        ``query`` or ``update``.
    strategy
        The query or the update.
    where
        Client and cycle.

    Raises
    ------
    UserError
        With the exception and the lines of the user's module that it came through. What goes wrong in this package's
        own strategies keeps its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        module = type(strategy).__module__
        if module.partition(".")[0] == OURS:
            raise
        root = module.partition(".")[0]
        frames = [
            traceback.format_list([traceback.FrameSummary(found.filename, found.lineno, found.name)])[0]
            for frame, found in zip(
                traceback.walk_tb(error.__traceback__), traceback.extract_tb(error.__traceback__), strict=True
            )
            if str(frame[0].f_globals.get("__name__")).partition(".")[0] == root
        ]
        lines = "".join(frames[-FRAMES:]).rstrip()
        raise UserError(
            f"{name_of(kind, strategy)}: {where}: {type(error).__name__}: {error}" + (f"\n{lines}" if lines else "")
        ) from error


def name_of(kind: str, strategy: object) -> str:
    """Return how a message calls a strategy."""
    return f"{kind} {type(strategy).__module__}.{type(strategy).__qualname__}"
