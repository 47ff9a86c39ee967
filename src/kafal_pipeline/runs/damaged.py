"""Messages about a file of results that is missing or damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kafal_pipeline.common.errors import UserError

REPAIR = (
    "Remove it and have it made again, with the same parameters: kedro run --pipeline fal --only-missing-outputs, or "
    "kedro run --pipeline fal for everything."
)

ABSENT = (
    "The run has not come that far, or the file has been removed. Make it again, with the same parameters: kedro run "
    "--pipeline fal, without --from-nodes or other options that choose nodes; with --only-missing-outputs where the "
    "run was finished."
)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn whatever reading `path` raises into a message that names the file: each format's reader has its own errors.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not path.exists():
            raise UserError(f"{path}: there is no such file. {ABSENT}") from error
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(f"{path}: cannot be read ({reason[0]}). {REPAIR}") from error
