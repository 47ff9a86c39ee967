"""Samples the machine's load: processor, memory, disk, network and, where `nvidia-ml-py` finds one, the GPU."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.tracking.journal import Journal, read

SYSTEM = "system.jsonl"
"""Name of the samples' file, next to the journal."""


class SystemSampler:
    """Writes MLflow's own system metrics to a journal of their own, in a thread, until it is stopped.

    They go to a file, not to the tracker, so that a tracker that is down loses none; steps continue those in the file.
    The first sample comes after one second, others after `interval`, and the last at the end: short runs have some.
    """

    def __init__(self, path: Path, interval: float = 5.0) -> None:
        self._monitors = _monitors()
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


def _monitors() -> list[Any]:
    """Return the monitors that MLflow's `SystemMetricsMonitor` chooses, which itself needs a tracker that answers."""
    # Only the helper imports mlflow: seconds.
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for kind in (GPUMonitor, ROCMMonitor):
        with contextlib.suppress(Exception):  # its package is not there, or there is no such GPU
            monitors.append(kind())
            break
    return monitors
