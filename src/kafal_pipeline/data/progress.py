"""Shows how far work on many files is: a bar on a terminal, lines of the log elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SILENT_SECONDS = 1.0
"""Work that is done by then shows nothing."""

LOG_EVERY_SECONDS = 10.0

logger = logging.getLogger(__name__)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield the function that is called with how many items have been done since its last call.

    `what`: the items and what becomes of them, such as "Images stored". `total`: how many there are.
    """
    shown = _Shown(what, total)
    try:
        yield shown.advance
    finally:
        if shown.bar is not None:
            shown.bar.stop()


class _Shown:
    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.begun = self.last_line = time.monotonic()
        self.bar: Progress | None = None

    def advance(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if self.bar is None and now - self.begun >= SILENT_SECONDS:
            self.bar = _started(self.what, self.total)
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done)
        elif now - self.last_line >= LOG_EVERY_SECONDS:
            self.last_line = now
            rate = self.done / max(now - self.begun, 1e-9)
            logger.info("%s: %s of %s, %.0f a second", self.what, f"{self.done:,}", f"{self.total:,}", rate)


def _started(what: str, total: int) -> Progress | None:
    """Return a bar that is shown; None where there is no terminal, or something else is shown on it."""
    from rich import get_console, progress  # only where something is shown
    from rich.errors import LiveError

    if not get_console().is_terminal:
        return None
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=get_console(),
        transient=True,
    )
    try:
        bar.start()
    except LiveError:
        return None
    bar.add_task(what, total=total)
    return bar
