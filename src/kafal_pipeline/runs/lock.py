"""Locks a run: a second process that worked on it would mix its results with the first one's."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import os
import platform

from filelock import FileLock

from kafal_pipeline.common import locks
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite, check_writable, dangling, write_json
from kafal_pipeline.runs.layout import Layout

PATIENCE = 2.0
"""Seconds that a process which was told to end has to let go."""


class Taken(UserError):
    """Another process works on the run."""


class Lock:
    """A run that this process works on; at most one."""

    def __init__(self) -> None:
        self._lock: FileLock | None = None
        self._run: Layout | None = None
        atexit.register(self.release)

    def acquire(self, run: Layout) -> None:
        """Take a run for this process, and let go of another one; the system lets go with the process.

        Raises
        ------
        CannotWrite
            If a folder of the run must not be written, or is a link to nowhere.
        Taken
            If another process works on this run.
        """
        self.release()
        for folder in run.written:
            if (broken := dangling(folder)) is not None:
                raise CannotWrite(broken)
            check_writable(folder)
        lock = locks.take(run.lock, PATIENCE)
        if lock is None:
            raise Taken(
                f"{run.name}: {_holder(run)} works on this run already, in {run.outputs}. Wait until it ends, or end "
                "it; a run with another seed, query or update may run at the same time."
            )
        self._lock, self._run = lock, run
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(run.holder, {"process": os.getpid(), "machine": platform.node(), "since": since})

    def release(self) -> None:
        """Let go of the run, if there is one, and leave no trace."""
        if self._lock is None or self._run is None:
            return
        with contextlib.suppress(OSError):
            self._run.holder.unlink()
        locks.leave(self._lock)
        self._lock = None
        with contextlib.suppress(OSError):  # it holds journals
            self._run.journals.rmdir()


def held(run: Layout) -> bool:
    """Tell whether a process works on a run; where nobody can, as in a folder that must not be written, none does."""
    if not run.lock.exists():
        return False
    lock = locks.take(run.lock)
    if lock is not None:
        locks.leave(lock)
    return lock is None


def _holder(run: Layout) -> str:
    """Return what is known of the process that holds the lock."""
    try:
        found = json.loads(run.holder.read_text(encoding="utf-8"))
        return f"process {found['process']} (on {found['machine']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just taken it
        return "another process"
