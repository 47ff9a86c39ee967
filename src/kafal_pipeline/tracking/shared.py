"""Many runs' journals, delivered by one process at a time: importing mlflow costs as much as a short run."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kafal_pipeline.tracking.helper import LOG, start_process
from kafal_pipeline.tracking.reachable import address

if TYPE_CHECKING:
    from kafal_pipeline.config import TrackingConfig

logger = logging.getLogger(__name__)


RUNS = 50
"""Journals that one process takes: each leaves some megabytes behind in it (TorchScript keeps every traced model)."""


@dataclass(eq=False)
class _Helper:
    """A process that delivers, and what it has been told."""

    process: subprocess.Popen[bytes]
    taken: int = 0
    active: set[Path] = field(default_factory=set)

    def tell(self, what: Literal["follow", "over"], journal: Path) -> None:
        """Hand one message over."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone: closing says so
            self.process.stdin.write(json.dumps({what: str(journal)}).encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """Say that all of its runs have ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()


class SharedDelivery:
    """Tells a helper, started with the first journal, which journals to follow and which of them are over.

    After `RUNS` journals another helper takes over, and the one before ends with its last run.

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
        self._helpers: list[_Helper] = []  # the last one takes new journals

    def follow(self, journal: Path) -> None:
        """Have a journal delivered while its run writes it."""
        journal = journal.resolve()
        if not self._helpers or self._helpers[-1].taken >= RUNS or self._helpers[-1].process.poll() is not None:
            self._end_idle()
            command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver_shared"]
            self._helpers.append(_Helper(start_process(command, self._folder / LOG, self._project, self._uri)))
        helper = self._helpers[-1]
        helper.taken += 1
        helper.active.add(journal)
        helper.tell("follow", journal)

    def over(self, journal: Path) -> None:
        """Say that a journal's run has ended: one that wrote no end was killed."""
        journal = journal.resolve()
        for helper in self._helpers:
            if journal in helper.active:
                helper.active.remove(journal)
                helper.tell("over", journal)
        if self._helpers:
            self._end_idle(besides=self._helpers[-1])

    def close(self, limit: float = 60) -> None:
        """Say that all runs have ended, and wait at most `limit` seconds for the delivery."""
        helpers, self._helpers = self._helpers, []
        deadline, codes = time.monotonic() + limit, []
        for helper in helpers:
            helper.end()
        for helper in helpers:
            try:
                codes.append(helper.process.wait(max(0.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                logger.warning("MLflow is still being given the runs, by process %s.", helper.process.pid)
        if any(codes):
            logger.warning(
                "MLflow was not given all of the runs, see %s. Nothing is lost. To deliver it later: "
                "python -m kafal_pipeline.tracking.deliver %s",
                self._folder / LOG,
                self._folder,
            )

    def _end_idle(self, besides: _Helper | None = None) -> None:
        for helper in self._helpers:
            if helper is not besides and not helper.active:
                helper.end()
