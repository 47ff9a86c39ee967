"""Many runs' journals, delivered by one process: importing mlflow costs as much as a short run."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kafal_pipeline.tracking.helper import LOG, start_process
from kafal_pipeline.tracking.reachable import address

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

logger = logging.getLogger(__name__)


class SharedDelivery:
    """Tells one helper, started with the first journal, which journals to follow and which of them are over.

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
        self._helper: subprocess.Popen[bytes] | None = None

    def follow(self, journal: Path) -> None:
        """Have a journal delivered while its run writes it."""
        if self._helper is None:
            command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver_shared"]
            self._helper = start_process(command, self._folder / LOG, self._project, self._uri)
        self._tell("follow", journal)

    def over(self, journal: Path) -> None:
        """Say that a journal's run has ended: one that wrote no end was killed."""
        self._tell("over", journal)

    def close(self, limit: float = 60) -> None:
        """Say that all runs have ended, and wait at most `limit` seconds for the delivery."""
        if self._helper is None or self._helper.stdin is None:
            return
        helper, self._helper = self._helper, None
        assert helper.stdin is not None
        with contextlib.suppress(OSError):
            helper.stdin.close()
        try:
            code = helper.wait(limit)
        except subprocess.TimeoutExpired:
            logger.warning("MLflow is still being given the runs, by process %s.", helper.pid)
            return
        if code != 0:
            logger.warning(
                "MLflow was not given all of the runs, see %s. Nothing is lost. To deliver it later: "
                "python -m kafal_pipeline.tracking.deliver %s",
                self._folder / LOG,
                self._folder,
            )

    def _tell(self, what: Literal["follow", "over"], journal: Path) -> None:
        if self._helper is None or self._helper.stdin is None:
            return
        with contextlib.suppress(OSError):  # the helper is gone: closing says so
            self._helper.stdin.write(json.dumps({what: str(journal.resolve())}).encode() + b"\n")
            self._helper.stdin.flush()
