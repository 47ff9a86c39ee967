"""Starts the process that delivers, and waits for it at the end of a run for a limited time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import kafal_pipeline
from kafal_pipeline.common.files import writing
from kafal_pipeline.tracking.progress import Progress

LOG = "deliver.log"
"""Name of the helper's log, beside the journal."""

PATIENCE = 2.0
"""Seconds after which it is looked whether the helper gets a core."""

STALLED = 30.0
"""Seconds without progress after which a run waits no longer: a server may take everything and answer nothing."""


def start_process(command: list[str], log: Path, project: Path, uri: str | None) -> subprocess.Popen[bytes]:
    """Start a process that delivers, out of reach of Ctrl-C and on one thread."""
    # Kedro adds `src` to the path of its own process only.
    source = str(Path(kafal_pipeline.__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # nothing here computes on a GPU; GPU metrics do not go through CUDA
        **({"MLFLOW_TRACKING_URI": uri} if uri else {}),
    }
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("ab")
    with file:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env=environment,
            cwd=project,  # where a bare `mlflow ui` is started, and where MLflow makes its default store
            process_group=0,  # out of reach of Ctrl-C; in the run's session, within which `nice` values count
        )


def starved(pid: int, before: float | None) -> tuple[bool, float | None]:
    """Return whether a process has been ready without a core for most of `PATIENCE`, and how long it has been so far.

    Parameters
    ----------
    pid
        The process.
    before
        Seconds that it had been ready without a core `PATIENCE` ago; None if that is not known.
    """
    try:
        now = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # it has ended, or this is no Linux
        return False, None
    return before is not None and now - before > PATIENCE / 2, now


def wait(
    helper: subprocess.Popen[bytes],
    folder: Path,
    limit: float,
    relieve: Callable[[], subprocess.Popen[bytes]] | None = None,
) -> int | None:
    """Return the helper's exit code; None if it needs more than `limit` seconds, or gets no further for `STALLED`.

    A helper that gets no core, since others use them and it gives way, is ended; `relieve` starts one in its place.
    """
    deadline, before, since = time.monotonic() + limit, None, time.monotonic()
    look, (_, ready) = since + PATIENCE, starved(helper.pid, None)
    while (now := time.monotonic()) < min(deadline, since + STALLED):
        try:
            return helper.wait(min(0.5, deadline - now))
        except subprocess.TimeoutExpired:
            progress = Progress.load(folder)
            if progress != before:
                before, since = progress, now
            if relieve is not None and now >= look:
                look = now + PATIENCE
                hungry, ready = starved(helper.pid, ready)
                if hungry:
                    helper.kill()  # it may be killed at any instant; what it was about to deliver is delivered again
                    helper.wait()
                    helper, relieve = relieve(), None
    return None
