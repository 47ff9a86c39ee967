"""Delivers many runs' journals by one process at a time: importing mlflow costs as much as a short run."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kafal_pipeline.tracking.helper import LOG, start_process
from kafal_pipeline.tracking.reachable import address

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

logger = logging.getLogger(__name__)


class SharedDelivery:
    """Tells a helper, started with the first journal, which journals to follow and which of them are over.

    If it dies, another one takes the journals that come after.

    Parameters
    ----------
    config
        The runs' section ``tracking``.
    project
        The project's folder, where `mlflow ui` is started.
    """

    def __init__(self, config: TrackingConfig, project: Path) -> None:
        self._uri = address(config)
        self._project = project
        self._folder = project / "data" / "09_tracking"
        self._helpers: list[subprocess.Popen[bytes]] = []  # the last one takes new journals

    def follow(self, journal: Path) -> None:
        """Have a journal delivered while its run writes it."""
        if not self._helpers or self._helpers[-1].poll() is not None:
            command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver_shared"]
            self._helpers.append(start_process(command, self._folder / LOG, self._project, self._uri))
        self._tell("follow", journal)

    def over(self, journal: Path) -> None:
        """Say that a journal's run has ended: one that wrote no end was killed."""
        self._tell("over", journal)

    def close(self, limit: float = 60) -> None:
        """Say that all runs have ended, and wait at most `limit` seconds for the delivery."""
        helpers, self._helpers = self._helpers, []
        deadline, codes = time.monotonic() + limit, []
        for helper in helpers:
            assert helper.stdin is not None
            with contextlib.suppress(OSError):
                helper.stdin.close()
        for helper in helpers:
            try:
                codes.append(helper.wait(max(0.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                logger.warning("Process %s is still delivering the runs to MLflow.", helper.pid)
        if any(codes):
            logger.warning(
                "Not everything was delivered to MLflow, see %s. Nothing is lost. To deliver it later: "
                "python -m kafal_pipeline.tracking.deliver %s",
                self._folder / LOG,
                self._folder,
            )

    def _tell(self, what: Literal["follow", "over"], journal: Path) -> None:
        """Tell the last helper; one that was not told to follow a journal takes no notice of its end."""
        if not self._helpers:
            return
        stdin = self._helpers[-1].stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone: closing says so
            stdin.write(json.dumps({what: str(journal.resolve())}).encode() + b"\n")
            stdin.flush()
