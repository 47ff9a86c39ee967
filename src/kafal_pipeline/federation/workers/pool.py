"""Runs tasks in several worker processes or in this one; the results are the same bits."""

import contextlib
import functools
import itertools
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Self

import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.processes import (
    TRAINING,
    die_with_parent,
    processes_on_a_cpu,
    start_context,
    starting_processes,
)
from kafal_pipeline.common.threads import single_thread
from kafal_pipeline.common.users_code import own_classes
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.federation.workers.worker import Worker
from kafal_pipeline.models.factory import network_class
from kafal_pipeline.query.factory import make_query
from kafal_pipeline.training.devices import choose_device
from kafal_pipeline.update.factory import make_update

Method = Literal["train", "summarise", "select", "predict"]

AHEAD = 2  # tasks in the hands of each process: one that it does and one that lies ready
WATCH = 1.0  # seconds without a result after which it is looked whether a process has died

_worker: Callable[[], Worker] | None = None  # returns the worker of a child process, made at the first call


class Late(Exception):
    """No result came in the time that there was for it."""


class Workers:
    """Runs a worker's method for many tasks, side by side where there are several processes.

    Each process computes with one thread, and so does this one where it works alone: more clients side by side are
    faster than more threads a client, and no sum depends on the number of either. For more than one process, `data`
    must be mapped from a store (`ImageData.folder`), so that its pages are shared. `apart` has one process do all, but
    not this one; after `patience` seconds without a result, `run` raises `Late`.
    """

    def __init__(self, data: ImageData, config: Config, *, apart: bool = False, patience: float | None = None) -> None:
        self.data, self.device = data, choose_device(config.training.device)
        self.count = 1 if apart else _processes(data, config)
        self._config, self._apart, self._patience = config, apart, patience
        self._local: Worker | None = None
        self._executor: ProcessPoolExecutor | None = None
        if self.count == 1 and not (apart and data.folder is not None):
            self._local = Worker(data, config)
        else:
            # One that works apart ends soon: there is none to fork it off that would stay.
            self._executor = ProcessPoolExecutor(
                self.count,
                mp_context=get_context("spawn") if apart else start_context(TRAINING),
                initializer=_start_child,
                initargs=(str(data.folder), config.model_dump()),
            )

    def run(self, method: Method, tasks: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield ``(position of the task, result)`` as results come in.

        Tasks are taken from the iterable as processes become free, so that a thousand clients' models need not be in
        memory at once.
        """
        if self._local is not None and method == "train" and self._local.device.type == "cuda":
            yield from self._local.train_side_by_side(tasks)
            return
        if self._local is not None:
            for position, task in enumerate(tasks):
                with single_thread():
                    result = getattr(self._local, method)(task)
                yield position, result
            return
        waiting = enumerate(tasks)
        futures: dict[Future[Any], int] = {}
        try:
            while True:
                for position, task in itertools.islice(waiting, AHEAD * self.count - len(futures)):
                    futures[self._submit(method, task)] = position
                if not futures:
                    return
                done = self._wait(futures)
                for future in done:
                    yield futures.pop(future), future.result()
        except BrokenProcessPool:
            futures.clear()  # the pool's thread sets each one's error, and would fail at one that is cancelled
            raise UserError(self._ended()) from None
        finally:
            for future in futures:
                future.cancel()

    def _wait(self, futures: Iterable[Future[Any]]) -> set[Future[Any]]:
        """Return those that are done, once there are any."""
        begin = time.monotonic()
        while not (done := wait(futures, timeout=WATCH, return_when=FIRST_COMPLETED).done):
            # The pool itself does not notice where a process dies while it sends a result.
            if any(not process.is_alive() for process in self._processes()):
                raise BrokenProcessPool
            if self._patience is not None and time.monotonic() - begin > self._patience:
                raise Late
        return done

    def _ended(self) -> str:
        """Return what to say where a process has died."""
        own = " or ".join(own_classes_in(self._config))
        if self._apart:
            return f"{own}: it ended the process that it ran in (os._exit, or a crash in compiled code)."
        causes = ["killed", "out of memory", *([f"ended by {own} (os._exit, or a crash)"] if own else [])]
        return (
            f"A training process ended unexpectedly: {', '.join(causes[:-1])}, or {causes[-1]}. The same command goes "
            "on after the last finished round; fewer processes need less memory: --params training.processes="
            f"{max(1, self.count // 2)} (found {self.count}), as do a smaller model and training.batch_size."
        )

    def _submit(self, method: Method, task: Any) -> Future[Any]:
        assert self._executor is not None
        with starting_processes():  # a task may start one
            return self._executor.submit(_call, method, task)

    def map(self, method: Method, tasks: Iterable[Any]) -> list[Any]:
        """Return the results in the order of the tasks."""
        results = dict(self.run(method, tasks))
        return [results[position] for position in range(len(results))]

    def close(self) -> None:
        """End the processes at once."""
        if self._executor is None:
            return
        processes, manager = self._processes(), getattr(self._executor, "_executor_manager_thread", None)
        # The pool's threads wait at pipes for a process that has ended in the middle of a message, and Python's exit
        # waits for them: the ends that the processes had are closed here, too.
        ends = [
            getattr(getattr(self._executor, queue, None), end, None)
            for queue, end in (("_call_queue", "_reader"), ("_result_queue", "_writer"))
        ]
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join(5)
        if manager is not None:
            manager.join(0.5)  # closes them itself, unless it waits; a second one to do so would break it
        for end in ends:
            with contextlib.suppress(OSError):
                if end is not None:
                    end.close()
        self._executor = None

    def _processes(self) -> list[BaseProcess]:
        return [] if self._executor is None else list((self._executor._processes or {}).values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def own_classes_in(config: Config) -> list[str]:
    """Return how messages call the classes of a user's own that a configuration names."""
    query, update = make_query(config.query), make_update(config.update)
    return own_classes({"query": query, "update": update, "model": network_class(config.model)})


def _processes(data: ImageData, config: Config) -> int:
    if choose_device(config.training.device).type != "cpu" or data.folder is None:
        return 1
    return processes_on_a_cpu(config.training.processes, config.partition.clients)


def _start_child(folder: str, config: dict[str, Any]) -> None:
    """Prepare a child process: one thread, deaf to Ctrl-C (the parent ends it), gone when the parent is gone."""
    from kafal_pipeline.config import resolve
    from kafal_pipeline.data.store.read import read_store

    global _worker  # noqa: PLW0603 - a process pool has no other place for what a child keeps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):
        torch.set_num_interop_threads(1)
    # Made at the first call, so that what goes wrong in it comes back like any result.
    _worker = functools.cache(lambda: Worker(read_store(Path(folder), trusted=True), resolve(config)))


def _call(method: Method, task: Any) -> Any:
    assert _worker is not None
    return getattr(_worker(), method)(task)
