"""Checks that there is memory for the processes that train."""

import psutil

from kafal_pipeline.common.machine import memory_left
from kafal_pipeline.pipelines.doctor.finding import OK, WARNING, Finding
from kafal_pipeline.pipelines.doctor.probe import Measured

CHECK = "memory"
MARGIN = 1.5  # free memory below this many times what was measured is worth a warning: runs have needed up to half more


def check(measured: Measured | str | None) -> Finding:
    """Compare the memory that is free, here and in the container, with what the processes needed when measured."""
    left = memory_left()
    free = min(psutil.virtual_memory().available, psutil.virtual_memory().total if left is None else left)
    if not isinstance(measured, Measured):
        return Finding(CHECK, WARNING, f"{free / 1e9:.1f} GB free; what the run needs could not be estimated")
    needed = measured.processes * measured.process_bytes
    found = (
        f"{free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed ({measured.processes} processes of "
        f"{measured.process_bytes / 1e9:.1f} GB)"
    )
    if MARGIN * needed <= free:
        return Finding(CHECK, OK, found)
    fewer = max(1, int(free // (MARGIN * measured.process_bytes)))
    advice = f"Set training.processes={fewer}, or take a smaller training.batch_size or model."
    return Finding(CHECK, WARNING, found, advice)
