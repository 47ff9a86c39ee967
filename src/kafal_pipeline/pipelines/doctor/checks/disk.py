"""Checks that there is room for the files that the run writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kafal_pipeline.config import Config
from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding, in_bytes
from kafal_pipeline.pipelines.doctor.probe import Measured
from kafal_pipeline.pipelines.doctor.workload import written_bytes

if TYPE_CHECKING:
    from kafal_pipeline.pipelines.doctor.checks.dataset import Seen

CHECK = "disk"
BESIDES = 50 << 20  # tables, figures, journal and MLflow's store
MARGIN = 2  # free space below this many times the estimate is worth a warning


def check(config: Config, data: Seen, measured: Measured | str | None, root: Path) -> Finding:
    """Compare the space that is free below ``data/`` with what the run is expected to write."""
    free, folder = room(root)
    if not isinstance(measured, Measured) or data.shape is None:
        return Finding(CHECK, WARNING, f"{in_bytes(free)} free; what the run writes could not be estimated")
    pixels = data.shape.pixel_bytes
    # A download is there twice for a moment, as an archive and unpacked.
    images = (0 if data.stored else pixels) + (0 if data.downloaded else 2 * pixels)
    needed = written_bytes(config, measured.model_bytes) + images + BESIDES
    found = f"{in_bytes(free)} free at {folder}, about {in_bytes(needed)} needed"
    if free < needed:
        advice = "Make room, or let data/ be a link to a larger disk. Fewer partition.clients or cycles need less."
        return Finding(CHECK, FAILURE, found, advice)
    if free < MARGIN * needed:
        return Finding(CHECK, WARNING, found, "It is an estimate: make room if you can.")
    return Finding(CHECK, OK, found)


def room(root: Path) -> tuple[int, Path]:
    """Return how many bytes are free below ``data/``, and at which folder: the nearest above if it is not there."""
    folder = root / "data"
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free, folder
