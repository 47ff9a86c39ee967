"""Waits for runs that another command is working on: their results serve both."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from kafal_pipeline.pipelines.compare.side_by_side.child import Task
from kafal_pipeline.pipelines.compare.side_by_side.launch import Launcher
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs.layout import Layout

logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks whether another process still works on a run


def run_beside_others(
    launcher: Launcher[str],
    runs: Mapping[str, Layout],
    tasks: Callable[[list[str]], list[tuple[str, Task]]],
    finished: Callable[[Layout], bool] = lambda run: False,
) -> Iterator[tuple[str, str | None]]:
    """Run all tasks; those that another process works on come last, and only if it leaves them unfinished.

    `runs` has the run of each task, by its path; `tasks` makes the tasks of some paths; `finished` tells whether the
    other process has left what the task would make. Yields the path of each task that has ended, with the reason if it
    failed.
    """
    waiting = list(runs)
    while waiting:
        yield from launcher.run(tasks(waiting))
        waiting, launcher.taken = [path for path in waiting if path in launcher.taken], set()
        if waiting:
            logger.info("Another command works on %s; waiting until it ends", ", ".join(waiting))
        for path in list(waiting):
            while run_lock.held(runs[path]):
                time.sleep(LOOK)
            if finished(runs[path]):
                waiting.remove(path)
                yield path, None
