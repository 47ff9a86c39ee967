"""Shows the progress of a comparison: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

logger = logging.getLogger(__name__)


class Display:
    """Counts runs and cycles and tells how much time is left.

    `runs`: how many are to be run. `cycles`: how many each of them has.
    """

    def __init__(self, runs: int, cycles: int) -> None:
        self.runs, self.cycles = runs, cycles
        self.done = self.failed = self.waiting = 0
        self._cycles: dict[str, int] = {}
        self._begun = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Display:
        """Begin."""
        from rich import get_console  # only where something is shown
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        if get_console().is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=get_console(), transient=True)
            self._bar.start()
            self._bar.add_task(self._text(), total=self.runs * self.cycles, left="")
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def cycle(self, run: str, cycle: int) -> None:
        """Take note that a run has evaluated a cycle."""
        self._cycles[run] = max(self._cycles.get(run, 0), cycle + 1)
        self._show()

    def end(self, run: str, error: str | None, *, waits: bool = False) -> None:
        """Take note that a run has ended, or waits for labels."""
        self.done += not waits
        self.waiting += waits
        self.failed += error is not None
        self._cycles[run] = self.cycles
        self._show()
        if error is not None:
            logger.error("%s failed: %s", run, error)
        if self._bar is None:
            logger.info(
                "%s, %s%s", self._text(), run, f", {self._left()}" if self.done + self.waiting < self.runs else ""
            )

    def _show(self) -> None:
        if self._bar is not None:
            done = sum(self._cycles.values())
            self._bar.update(self._bar.task_ids[0], completed=done, description=self._text(), left=self._left())

    def _text(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        waiting = f", {self.waiting} waiting for labels" if self.waiting else ""
        return f"{self.done} of {self.runs} runs done{failed}{waiting}"

    def _left(self) -> str:
        done = sum(self._cycles.values())
        if not done:
            return ""
        seconds = (time.monotonic() - self._begun) / done * (self.runs * self.cycles - done)
        hours, minutes = divmod(round(seconds / 60), 60)
        if hours:
            return f"about {hours} h {minutes} min left"
        return f"about {minutes} min left" if minutes else f"about {round(seconds)} s left"
