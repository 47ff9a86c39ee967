"""Starts the helper process that delivers journals, tells it about them, and waits for it for a limited time."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import kafal_pipeline
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import writing
from kafal_pipeline.tracking.progress import Progress

logger = logging.getLogger(__name__)

LOG = "deliver.log"
PATIENCE = 2.0  # seconds between two looks at how far the helper is, and whether it gets a core
STALLED = 30.0  # seconds without progress after which a run waits no longer: a server may take all and answer nothing


def environment(uri: str | None) -> dict[str, str]:
    """Return the environment of a process that talks to the tracker: one thread, and no GPU."""
    source = str(Path(kafal_pipeline.__file__).parents[1])  # Kedro adds `src` to the path of its own process only
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # GPU metrics do not go through CUDA
        **({"MLFLOW_TRACKING_URI": uri} if uri else {}),
    }


class Helper:
    """One process that delivers the journals of a run, or of all runs of a comparison, while they are written.

    It starts with the first journal, in the project's folder, and writes its log into `folder`. Where it dies, another
    one takes all journals with the next. The end of its standard input means the end of this process; then it tries
    for `patience` seconds to reach the tracker at `uri` (None: MLflow's own choice).
    """

    def __init__(self, uri: str | None, project: Path, folder: Path, patience: float = 15) -> None:
        self._uri, self._project, self._log, self._patience = uri, project, folder / LOG, patience
        self._journals: dict[Path, bool] = {}  # and whether their runs are over
        self._process: subprocess.Popen[bytes] | None = None
        # A child forked by the training keeps a copy of the pipe, and would hide this process's end from the helper.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._end_input)

    def follow(self, journal: Path) -> None:
        """Have a journal delivered while its run writes it."""
        self._journals[journal] = False
        if self._process is None or self._process.poll() is not None:
            self._start()
        else:
            self._tell("follow", journal)

    def over(self, journal: Path) -> None:
        """Say that a journal's run has ended: one that wrote no end was killed."""
        if journal in self._journals:
            self._journals[journal] = True
            self._tell("over", journal)

    def close(self, limit: float = 60) -> None:
        """Say that all runs have ended, wait at most `limit` seconds for the delivery, and warn of what is left."""
        if self._process is None:
            return
        self._end_input()
        try:
            code = self._wait(limit)
        except KeyboardInterrupt:  # all results are there: who does not want to wait need not
            code = None
        progress, journals = self._progress(), list(self._journals)
        path = journals[0] if len(journals) == 1 else self._log.parent
        later = f"To deliver it later: python -m kafal_pipeline.tracking.deliver {path}"
        for note in sorted({note for found in progress for note in found.skipped}):
            logger.warning("Not in MLflow: %s", note)
        if code is None:
            logger.warning("Process %s is still delivering to MLflow. %s", self._process.pid, later)
        elif code:
            found = next((found.problem for found in progress if found.problem), f"see {self._log}")
            logger.warning("Not everything was delivered to MLflow: %s. Nothing is lost. %s", found, later)
        self._process, self._journals = None, {}

    def _start(self, *options: str) -> None:
        """Start the process, out of reach of Ctrl-C, and tell it of all journals."""
        command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver", "--follow"]
        with writing(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
            file = self._log.open("ab")
        with file:
            self._process = subprocess.Popen(
                [*command, "--patience", str(self._patience), *options],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=environment(self._uri),
                cwd=self._project,  # where MLflow makes its default store
                process_group=0,  # out of reach of Ctrl-C; in the run's session, within which `nice` values count
            )
        for journal, over in self._journals.items():
            self._tell("follow", journal)
            if over:
                self._tell("over", journal)

    def _tell(self, what: Literal["follow", "over"], journal: Path) -> None:
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone: the next `follow` or `close` sees to it
            self._process.stdin.write(json.dumps({what: str(journal.resolve())}).encode() + b"\n")
            self._process.stdin.flush()

    def _end_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _wait(self, limit: float) -> int | None:
        """Return the exit code; None after `limit` seconds, or `STALLED` without progress.

        A process that gets no core, since others use them and it gives way, is replaced once by one that does not.
        """
        assert self._process is not None
        deadline, before, last, replaced = time.monotonic() + limit, self._progress(), time.monotonic(), False
        ready = seconds_ready(self._process.pid)
        while (now := time.monotonic()) < min(deadline, last + STALLED):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(min(PATIENCE, deadline - now))
            progress = self._progress()
            if progress != before:
                before, last = progress, now
            was, ready = ready, seconds_ready(self._process.pid)
            if not replaced and ready - was > PATIENCE / 2:
                logger.info("MLflow's helper gets no processor time; another one replaces it.")
                self._process.kill()  # what it was about to deliver is delivered again, to no other effect
                self._process.wait()
                self._start("--now")
                self._end_input()
                replaced = True
        return None

    def _progress(self) -> list[Progress]:
        """Return how far the journals are delivered; a damaged note is the delivery's matter, which says so."""
        found = []
        for journal in self._journals:
            with contextlib.suppress(UserError):
                found.append(Progress.load(journal.parent))
        return found


def seconds_ready(pid: int) -> float:
    """Return for how many seconds a process has been ready without a core so far; NaN where that is not known."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # it has ended, or this is no Linux
        return math.nan
