"""Worker processes, checkpoints and deliveries of a run. They never change a result."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.lifecycle.progress_bar import ProgressBar
from kafal_pipeline.runs.layout import Layout

if TYPE_CHECKING:
    from pandas import DataFrame

    from kafal_pipeline.annotation.desk import Desk
    from kafal_pipeline.config import Config
    from kafal_pipeline.data import ImageData
    from kafal_pipeline.federation.between_rounds.store import Store
    from kafal_pipeline.federation.workers.pool import Workers
    from kafal_pipeline.tracking.helper import Helper

logger = logging.getLogger(__name__)

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
"""Files that a GPU's driver makes; PyTorch, which knows for sure, takes seconds to import."""


class Resources:
    """What the run in this process holds, made on first use and released by `close`."""

    def __init__(self) -> None:
        self.progress = ProgressBar()
        self._workers: Workers | None = None
        self._made_for: tuple[Any, ...] | None = None
        self._delivery: Helper | None = None
        self._project: Path | None = None
        self._options = ""

    def keep_checkpoints(self, project: Path, options: str = "") -> None:
        """Have training write down its rounds, in the data of the project's folder.

        `options`: those of the command line that name the run, for messages.
        """
        self._project, self._options = project, options

    def store(self, config: Config, cycle: int, pool: DataFrame | None = None) -> Store:
        """Return what keeps the clients' states in a cycle: durable, in a project's run that trains on a pool."""
        from kafal_pipeline.federation.between_rounds.store import Store

        if self._project is None:
            return Store()
        from kafal_pipeline.runs import provenance  # only projects have runs

        run = Layout(self._project, config)
        found, folder = provenance.read(run), run.checkpoint(cycle)
        if found is None or pool is None:  # what makes the results is not known, and whose a checkpoint would be
            return Store(folder.parent)
        owner = hashlib.sha256(json.dumps(dict(found.fingerprint), sort_keys=True).encode())
        owner.update(pool.to_csv(index=False).encode())
        return Store(folder, owner.hexdigest(), config.training.checkpoint_every)

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self._project or Path()

    def desk(self, config: Config, images: ImageData) -> Desk:
        """Return the desk at which people are asked for labels."""
        return desk_of(config, images, self.root, self._options)

    def workers(self, images: ImageData, config: Config) -> Workers:
        """Return the workers for this data and configuration; other ones end first."""
        from kafal_pipeline.federation.workers.pool import Workers

        key = (str(images.folder) if images.folder else id(images), config.model_dump_json())
        if self._workers is None or self._made_for != key:
            self.close_workers()
            self._workers, self._made_for = Workers(images, config), key
            logger.debug("Training in %d processes.", self._workers.count)
        return self._workers

    def close_workers(self) -> None:
        """End the processes that train and predict."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def delivery(self, config: Config, project: Path) -> Helper:
        """Return what delivers the journals of a comparison."""
        if self._delivery is None:
            from kafal_pipeline.tracking.helper import Helper  # only comparisons have one here
            from kafal_pipeline.tracking.reachable import address

            self._delivery = Helper(address(config.tracking), project, project / "data" / "09_tracking")
        return self._delivery

    def close(self, patience: float = 60) -> None:
        """Release what the run holds; wait at most `patience` seconds for what is still to be delivered."""
        self.progress.close()
        self.close_workers()
        self._project = None
        if self._delivery is not None:
            self._delivery.close(patience)
            self._delivery = None


def desk_of(config: Config, images: ImageData, root: Path, options: str = "") -> Desk:
    """Return the desk of the run with a configuration in the project folder `root`; `options`: those that name it."""
    from kafal_pipeline.annotation.desk import Desk  # only where people annotate

    run, path = Layout(root, config), config.dataset.path
    folder = None if path is None else root / Path(path).expanduser()
    source = folder if folder is not None and folder.is_dir() else None
    names = images.clients_of(config.partition.method)
    return Desk(run.name, run.requests, run.answers, images, config.annotation, source, names, options)


def prepare(config: Config) -> None:
    """Have the processes that will train import PyTorch while this one does; a GPU needs no such processes."""
    from kafal_pipeline.common.processes import TRAINING, begin_server, processes_on_a_cpu

    device = config.training.device
    gpu = device == "auto" and any(Path(driver).exists() for driver in GPU_DRIVERS)
    if (
        processes_on_a_cpu(config.training.processes, config.partition.clients) > 1
        and device in ("auto", "cpu")
        and not gpu
    ):
        begin_server(TRAINING)
