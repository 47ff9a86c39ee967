"""Reports a mistake in a user's own query or update: its class, client and cycle, and the user's own lines."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import numpy as np

from kafal_pipeline.errors import UserError
from kafal_pipeline.query.base import Selection

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


def check_selection(query: object, selection: object, pool: np.ndarray, budget: int, where: str) -> Selection:
    """Return what a query has chosen if it is ``min(budget, len(pool))`` different samples of the pool.

    Raises
    ------
    UserError
        With the query, the client, the cycle and what it chose: another number of labels would be bought, and the
        query compared with others that got fewer.
    """
    name = name_of("query", query)
    if not isinstance(selection, Selection):
        raise UserError(f"{name}: {where}: `select` returned {type(selection).__name__} instead of a Selection.")
    samples, due = np.asarray(selection.samples), min(budget, len(pool))
    found = None
    if len(samples) != due:
        found = f"{len(samples)} {'sample' if len(samples) == 1 else 'samples'}"
    elif len(np.unique(samples)) != len(samples):
        found = "a sample twice"
    elif not np.isin(samples, pool).all():
        found = f"sample {samples[~np.isin(samples, pool)][0]}, which is not in the pool"
    if found is not None:
        raise UserError(
            f"{name}: {where}: `select` returned {found}; it must return {due} different samples of the {len(pool)} in "
            "pool.samples: min(budget, len(pool))."
        )
    return selection


def name_of(kind: str, strategy: object) -> str:
    """Return how a message calls a strategy."""
    return f"{kind} {type(strategy).__module__}.{type(strategy).__qualname__}"
