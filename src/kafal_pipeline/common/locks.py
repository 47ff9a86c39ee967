"""Locks for one process at a time; the system frees them when the process ends, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kafal_pipeline.common.files import writing

if TYPE_CHECKING:
    from filelock import FileLock

ATTEMPTS = 3  # a process that ends may remove the lock's folder just as another one looks into it


def take(path: Path, timeout: float = 0) -> FileLock | None:
    """Return the lock `path`, a file for this alone, held by this process.

    None if another process still holds it after `timeout` seconds; a negative one waits as long as it takes.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with writing(path):
        for attempt in range(ATTEMPTS):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=timeout)
            except Timeout:
                break
            except FileNotFoundError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return lock
    return None


def leave(lock: FileLock) -> None:
    """Let go of a lock, and remove its file."""
    with contextlib.suppress(OSError):  # while it is held: whoever has opened it finds it without a name, looks again
        Path(lock.lock_file).unlink()
    lock.release()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for the lock `path`, and hold it."""
    lock = take(path, timeout=-1)
    assert lock is not None
    try:
        yield
    finally:
        leave(lock)
