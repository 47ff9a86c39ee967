"""Runs several runs side by side, as many as cores and memory allow; one that fails does not end the others."""

import contextlib
import multiprocessing
import multiprocessing.connection
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil

from kafal_pipeline.common import machine
from kafal_pipeline.common.processes import start_context, starting_processes
from kafal_pipeline.pipelines.compare.side_by_side.child import PRELOADED, Message, Task, main

K = TypeVar("K")

ASSUMED_GB = 2.0
"""Memory of a run as long as none has got through a cycle: rather too much, since all of them grow at once."""

LEAST_GB = 0.1  # memory of a run at least, where the system says nothing
PATIENCE = 1.5  # seconds that processes have to end when the comparison is interrupted


@dataclass
class _Child(Generic[K]):
    key: K
    process: Any
    messages: Connection
    log: Path
    ended: Message | None = None


class Launcher(Generic[K]):
    """Runs tasks in processes of their own.

    `jobs`: the most of them side by side. `memory_limit`: GB for all of them together: none begins where that
    would go beyond it, if each needs as much as the largest so far has. `hear`: called with a run's key and each of its
    messages but the last. `taken`: keys of the tasks that could not begin because another process works on the same
    run. `waiting`: for what runs wait that are neither done nor have failed.
    """

    def __init__(self, jobs: int, memory_limit: float, hear: Callable[[K, Message], None]) -> None:
        self.jobs, self.memory_limit, self._hear = jobs, memory_limit, hear
        self._peak, self._known = LEAST_GB, False
        self.taken: set[K] = set()
        self.waiting: dict[K, str] = {}
        self._children: list[_Child[K]] = []

    def run(self, tasks: Iterable[tuple[K, Task]]) -> Iterator[tuple[K, str | None]]:
        """Yield the key of each task that has ended, with the reason if it failed; those taken are not among them.

        However the iteration ends, no process is left.
        """
        waiting = list(tasks)
        context = start_context(PRELOADED)
        try:
            while waiting or self._children:
                while waiting and self._has_room():
                    self._children.append(_start(context, *waiting.pop(0)))
                yield from self._wait()
        finally:
            self._end()

    def _has_room(self) -> bool:
        """Tell whether another run may begin: one always may, more only within the limits."""
        if not self._children:
            return True
        each = self._peak if self._known else max(self._peak, ASSUMED_GB)
        return len(self._children) < self.jobs and (len(self._children) + 1) * each <= self.memory_limit

    def _wait(self) -> Iterator[tuple[K, str | None]]:
        """Hear what the runs say, for half a second at most, and yield those that have ended."""
        ready = multiprocessing.connection.wait(
            [item for child in self._children for item in (child.messages, child.process.sentinel)], timeout=0.5
        )
        for child in list(self._children):
            self._peak = max(self._peak, _memory(child.process.pid))
            if child.messages in ready or child.process.sentinel in ready:
                self._read(child)
            if child.process.sentinel in ready:
                child.process.join()
                child.messages.close()
                self._children.remove(child)
                if child.ended is not None and child.ended[0] == "taken":
                    self.taken.add(child.key)
                    continue
                if child.ended is not None and child.ended[0] == "waiting":
                    self.waiting[child.key] = str(child.ended[1])
                yield child.key, _reason(child)

    def _read(self, child: _Child[K]) -> None:
        with contextlib.suppress(EOFError, OSError):
            while child.messages.poll():
                message = child.messages.recv()
                if message[0] in {"done", "failed", "taken", "waiting"}:
                    child.ended = message
                else:
                    self._known |= message[0] == "cycle"  # what fails, or finds nothing to do, tells nothing
                    self._hear(child.key, message)

    def _end(self) -> None:
        """End all processes, gently first."""
        for child in self._children:
            child.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for child in self._children:
            child.process.join(max(0.0, deadline - time.monotonic()))
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
            self._read(child)
        self._children.clear()


def memory_limit(given: float | None, root: Path = machine.ROOT) -> float:
    """Return the limit in GB: the one given, or four fifths of what is free now, and in the container."""
    if given is not None:
        return given
    free, left = psutil.virtual_memory().available, machine.memory_left(root)
    return 0.8 * (free if left is None else min(free, left)) / 1e9


def first_runs(limit: float) -> int:
    """Return how many runs a limit in GB lets begin side by side, before it is known what one needs."""
    return max(1, int(limit / ASSUMED_GB))


def _start(context: BaseContext, key: K, task: Task) -> _Child[K]:
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=main, args=(task, there))  # type: ignore[attr-defined]
    with starting_processes():
        process.start()
    there.close()
    return _Child(key, process, here, task.log)


def _memory(pid: int) -> float:
    """Return the memory in GB that a process and those below it have for themselves; shared pages count for none."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for item in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                info = item.memory_info()
                total += info.rss - getattr(info, "shared", 0)
    return total / 1e9


def _reason(child: _Child[Any]) -> str | None:
    if child.ended is None:
        code = child.process.exitcode
        how = f"was ended by signal {-code}, perhaps for lack of memory" if code and code < 0 else f"ended with {code}"
        return f"The process {how} (see {child.log})."
    return str(child.ended[1]) if child.ended[0] == "failed" else None
