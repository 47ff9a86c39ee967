"""Locks a run: a second process that worked on it would mix its results with the first one's."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import os
import platform
from pathlib import Path

from filelock import FileLock

from kafal_pipeline.common import locks
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite, check_writable, dangling, write_json
from kafal_pipeline.config import Config

LOCK = "run.lock"
"""Name of the file in the run's folder of tracking that the process holds; the system lets go with the process."""

PATIENCE = 2.0
"""Seconds that a process which was told to end has to let go."""

HOLDER = "run.json"
"""Name of the file beside it that says which process that is."""


def folders(root: Path, config: Config) -> dict[str, Path]:
    """Return the folders of ``data/`` that every run writes, by their layer; the images may be shared, and read alone.

    Parameters
    ----------
    root
        The project's folder.
    config
        The run's configuration.
    """
    layers = ("05_model_input", "06_models", "07_model_output", "08_reporting", "09_tracking")
    paths = {"03_primary": config.split_path, **dict.fromkeys(layers, config.run_path)}
    return {layer: root / "data" / layer / path for layer, path in paths.items()}


class Taken(UserError):
    """Another process works on the run."""


class Lock:
    """A run that this process works on; at most one."""

    def __init__(self) -> None:
        self._lock: FileLock | None = None
        self._folder = Path()
        atexit.register(self.release)

    def acquire(self, root: Path, config: Config) -> None:
        """Take a run for this process, and let go of another one.

        Parameters
        ----------
        root
            The project's folder.
        config
            The run's configuration.

        Raises
        ------
        CannotWrite
            If a folder of the run must not be written, or is a link to nowhere.
        Taken
            If another process works on this run.
        """
        self.release()
        places = folders(root, config)
        for place in places.values():
            if (broken := dangling(place)) is not None:
                raise CannotWrite(broken)
            check_writable(place)
        folder = places["09_tracking"]
        lock = locks.take(folder / LOCK, PATIENCE)
        if lock is None:
            raise Taken(
                f"{config.run_path}: {_holder(folder)} works on this run already, in {places['07_model_output']}. Wait "
                "until it ends, or end it; a run with another seed, query or update may run at the same time."
            )
        self._lock, self._folder = lock, folder
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(folder / HOLDER, {"process": os.getpid(), "machine": platform.node(), "since": since})

    def release(self) -> None:
        """Let go of the run, if there is one, and leave no trace."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            (self._folder / HOLDER).unlink()
        locks.leave(self._lock)
        self._lock = None
        with contextlib.suppress(OSError):  # it holds journals
            self._folder.rmdir()


def held(root: Path, config: Config) -> bool:
    """Tell whether a process works on a run; where nobody can, as in a folder that must not be written, none does."""
    path = folders(root, config)["09_tracking"] / LOCK
    if not path.exists():
        return False
    lock = locks.take(path)
    if lock is not None:
        locks.leave(lock)
    return lock is None


def _holder(folder: Path) -> str:
    """Return what is known of the process that holds the lock."""
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {found['process']} (on {found['machine']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just taken it
        return "another process"
