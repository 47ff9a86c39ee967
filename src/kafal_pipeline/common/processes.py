"""Starts and ends this project's processes."""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Literal

import kafal_pipeline
from kafal_pipeline.common.machine import cores

MALLOC = {"hugetlb": 1, "mmap_threshold": 2**30, "trim_threshold": 2**31 - 1, "top_pad": 2**26}
"""Settings of the GNU C library's memory allocator; others ignore them."""

TRAINING = ("kafal_pipeline.federation.workers.worker", "kafal_pipeline.config", "kafal_pipeline.data.store.read")
"""Modules that processes that train import."""

FROZEN = "kafal_pipeline.common.freeze_imports"  # imported after it


def start_context(preloaded: Sequence[str]) -> BaseContext:
    """Return how processes start: forked off one that has imported `preloaded`, where the system can.

    A started one would import torch for itself: seconds of work, and 300 MB that forked ones share. Forking off this
    process itself is not safe, since it runs threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preloaded, FROZEN])
    return context


def processes_on_a_cpu(wanted: int | Literal["auto"], clients: int) -> int:
    """Return in how many processes clients train on a CPU, by ``training.processes``; 1 is the run's own."""
    return max(1, min(cores(), clients)) if wanted == "auto" else wanted


def begin_server(preloaded: Sequence[str]) -> None:
    """Start the process that others are forked off, where there is one: it imports meanwhile."""
    if start_context(preloaded).get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running  # missing on some systems

        with starting_processes():
            ensure_running()


@contextlib.contextmanager
def starting_processes() -> Iterator[None]:
    """Start processes in here: deaf to Ctrl-C from their first instruction, quickly, and with memory that stays."""
    if hasattr(signal, "pthread_sigmask"):
        # Started in here, Python's own helper would let Ctrl-C through to what starts after it.
        resource_tracker.ensure_running()
    with _interrupts_held(), _main_hidden(), _environment():
        yield


def end_quickly() -> None:
    """Keep what has been imported out of the collection at this process's end: PyTorch's takes most of a second.

    Not where a library is bound by nanobind, as Triton is, which torchvision imports: it counts what is not collected,
    and prints it as leaks.
    """
    if not any(str(kind.__module__) == "nanobind" for kind in type.__subclasses__(type)):
        gc.freeze()


def die_with_parent() -> None:
    """End this process, from now on, when the one that started it is gone."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep new processes from importing the main script: Kedro's command line, which they do not need."""
    main = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name) for name in ("__file__",) if name in vars(main)}
    spec, main.__spec__ = main.__spec__, None
    try:
        yield
    finally:
        vars(main).update(hidden)
        main.__spec__ = spec


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Let new processes find this package, which Kedro adds to its own path only, and keep the memory that they free.

    Every training step needs the same tensors again. By default large ones are given back to the system and come back
    as thousands of empty pages, a sixth of a step's time. Huge pages save another twentieth.
    """
    ours = {
        "PYTHONPATH": (str(Path(kafal_pipeline.__file__).parents[1]), os.pathsep),
        "GLIBC_TUNABLES": (":".join(f"glibc.malloc.{name}={value}" for name, value in MALLOC.items()), ":"),
    }
    before = {name: os.environ.get(name) for name in ours}
    for name, (value, separator) in ours.items():
        os.environ[name] = value if before[name] is None else f"{value}{separator}{before[name]}"
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, so that processes started meanwhile are deaf to it from their first instruction.

    It reaches the whole process group, and a child that still imports would print a traceback. What comes meanwhile
    is delivered afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
