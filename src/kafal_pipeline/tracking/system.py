"""Samples of the machine's load: processor, memory, disk, network and, where `nvidia-ml-py` finds one, the GPU."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from kafal_pipeline.files import CannotWrite
from kafal_pipeline.tracking.journal import Journal, read

SYSTEM = "system.jsonl"
"""Name of the samples' file, beside the journal."""


class SystemSampler:
    """Writes MLflow's own system metrics to a journal of their own, in a thread, until it is stopped.

    They go to a file, not to the tracker, so that a tracker that is down loses none.

    Parameters
    ----------
    path
        The file; the steps go on from what it holds.
    interval
        Seconds between two samples. The first comes after one second and the last at the end: short runs have some.
    """

    def __init__(self, path: Path, interval: float = 5.0) -> None:
        from mlflow.system_metrics.system_metrics_monitor import (  # noqa: PLC0415 - only the helper imports mlflow
            SystemMetricsMonitor,
        )

        # Only its choice of monitors is used: its own thread drops what it sampled when the tracker does not answer.
        self._monitors = SystemMetricsMonitor(run_id="", tracking_uri="").monitors
        self._journal = Journal(path)
        self._step = len(read(path))
        self._interval = interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the file."""
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(CannotWrite):
            self._journal.close()

    def _sample(self) -> None:
        self._measure()  # the processor's load is measured since the call before: the first one means nothing
        wait, stopped = 1.0, False
        while not stopped:
            stopped = self._stopped.wait(wait)
            values = {f"system/{key}": float(value) for key, value in self._measure().items()}
            with contextlib.suppress(CannotWrite):  # a disk that is full now may have room for the next one
                self._journal.append("metrics", step=self._step, values=values)
                self._step += 1
            wait = self._interval

    def _measure(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values
