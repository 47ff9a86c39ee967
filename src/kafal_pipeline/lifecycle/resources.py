"""Worker processes and progress display of a run. They never change a result."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.runs.layout import cycle_name

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.progress import Progress, TaskID

    from kafal_pipeline.config import Config
    from kafal_pipeline.data import ImageData
    from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
    from kafal_pipeline.federation.between_rounds.store import Store
    from kafal_pipeline.federation.workers.pool import Workers
    from kafal_pipeline.tracking.shared import SharedDelivery

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 15.0
"""Where there is no terminal, a round is logged when the last line is older."""

GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
"""Files that a GPU's driver makes; PyTorch, which knows for sure, takes seconds to import."""


class Runtime:
    """The resources of the run in this process, made on first use and released by `close`."""

    def __init__(self) -> None:
        self._workers: Workers | None = None
        self._made_for: tuple[Any, ...] | None = None
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._last_line = 0.0
        self._waiting: threading.Timer | None = None
        self._delivery: SharedDelivery | None = None
        self.listener: Callable[[int], None] | None = None
        self._project: Path | None = None

    def keep_checkpoints(self, project: Path) -> None:
        """Have training write down its rounds, in the data of the project's folder."""
        self._project = project

    def store(self, config: Config, cycle: int, pool: DataFrame | None = None) -> Store:
        """Return what keeps the clients' states in a cycle: durable, in a project's run that trains on a pool."""
        from kafal_pipeline.federation.between_rounds.store import Store

        if self._project is None:
            return Store()
        from kafal_pipeline.runs import provenance  # only projects have runs
        from kafal_pipeline.runs.resume import checkpoint_folder

        found = provenance.read(self._project / provenance.OUTPUTS / config.run_path)
        folder = checkpoint_folder(self._project, config, cycle_name(cycle))
        if found is None or pool is None:  # what makes the results is not known, and whose a checkpoint would be
            return Store(folder.parent)
        owner = hashlib.sha256(json.dumps(dict(found.fingerprint), sort_keys=True).encode())
        owner.update(pool.to_csv(index=False).encode())
        return Store(folder, owner.hexdigest(), config.training.checkpoint_every)

    def workers(self, images: ImageData, config: Config) -> Workers:
        """Return the workers for this data and configuration; other ones end first."""
        from kafal_pipeline.federation.workers.pool import Workers

        key = (str(images.folder) if images.folder else id(images), config.model_dump_json())
        if self._workers is None or self._made_for != key:
            self.close_workers()
            self._workers, self._made_for = Workers(images, config), key
            logger.debug("Training in %d processes.", self._workers.count)
        return self._workers

    def on_round(self, config: Config) -> Callable[[CycleState], None]:
        """Return what is called after every round."""
        rounds, cycles = config.federation.rounds, config.cycles

        def show(state: CycleState) -> None:
            losses = [row["loss"] for row in state.rows if row["round"] == state.round - 1 and not row["failed"]]
            loss = sum(losses) / len(losses)
            text = f"cycle {state.cycle}/{cycles - 1}, round {state.round}/{rounds}, loss {loss:.4f}"
            progress = self._started(cycles * rounds)
            if progress is not None and self._bar is not None:
                progress.update(self._bar, completed=state.cycle * rounds + state.round, description=text)
            elif time.monotonic() - self._last_line > LOG_EVERY_SECONDS:
                self._last_line = time.monotonic()
                logger.info(text)

        return show

    def on_wait(self, config: Config, cycle: int) -> Callable[[list[int]], None]:
        """Return what is called with the clients whose queries are being waited for, whenever they are others."""
        rounds, cycles = config.federation.rounds, config.cycles

        def show(clients: list[int]) -> None:
            self._stop_waiting()
            if not clients:
                return
            names = f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients))}"
            text = f"cycle {cycle}/{cycles - 1}, waiting for the query of {names}"
            progress = self._started(cycles * rounds)
            if progress is not None and self._bar is not None:
                progress.update(self._bar, completed=cycle * rounds, description=text)
            else:  # a log has this line only where one is waited for long
                self._waiting = threading.Timer(LOG_EVERY_SECONDS, logger.info, [text])
                self._waiting.daemon = True
                self._waiting.start()

        return show

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def on_evaluation(self, config: Config, cycle: int, labels: int, accuracy: float) -> None:
        """Say what a cycle reached."""
        self._last_line = time.monotonic()
        logger.info("cycle %d/%d: %d labels, accuracy %.2f %%", cycle, config.cycles - 1, labels, 100 * accuracy)
        if self.listener is not None:
            self.listener(cycle)

    def _started(self, total: int) -> Progress | None:
        """Return the progress bar, started; None where there is no terminal."""
        if self._progress is None:
            from rich import get_console  # only where something is shown
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            if not get_console().is_terminal:
                return None
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=get_console(),
                transient=True,
            )
            self._progress.start()
            self._bar = self._progress.add_task("training", total=total)
        return self._progress

    def close_workers(self) -> None:
        """End the processes that train and predict."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def delivery(self, config: Config, project: Path) -> SharedDelivery:
        """Return what delivers the journals of a comparison."""
        if self._delivery is None:
            from kafal_pipeline.tracking.shared import SharedDelivery  # only comparisons have one

            self._delivery = SharedDelivery(config.tracking, project)
        return self._delivery

    def close(self, patience: float) -> None:
        """End the processes and the progress bar; `patience` is for what is still to be delivered."""
        self._stop_waiting()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self.close_workers()
        self._project = None
        if self._delivery is not None:
            self._delivery.close(patience)
            self._delivery = None


_current = Runtime()


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


def workers(images: ImageData, config: Config) -> Workers:
    """Return the run's workers."""
    return _current.workers(images, config)


def close_workers() -> None:
    """End the processes that train and predict; where some are needed later, they start anew."""
    _current.close_workers()


def keep_checkpoints(project: Path) -> None:
    """Have training write down its rounds, in the data of the project's folder."""
    _current.keep_checkpoints(project)


def store(config: Config, cycle: int, pool: DataFrame | None = None) -> Store:
    """Return what keeps the clients' states in a cycle: durable, in a project's run that trains on a pool."""
    return _current.store(config, cycle, pool)


def on_round(config: Config) -> Callable[[CycleState], None]:
    """Return what is called after every round."""
    return _current.on_round(config)


def on_wait(config: Config, cycle: int) -> Callable[[list[int]], None]:
    """Return what is called with the clients whose queries are being waited for, whenever they are others."""
    return _current.on_wait(config, cycle)


def on_evaluation(config: Config, cycle: int, labels: int, accuracy: float) -> None:
    """Say what a cycle reached."""
    _current.on_evaluation(config, cycle, labels, accuracy)


def listen(listener: Callable[[int], None]) -> None:
    """Call `listener` with each cycle that has been evaluated."""
    _current.listener = listener


def delivery(config: Config, project: Path) -> SharedDelivery:
    """Return what delivers the journals of a comparison."""
    return _current.delivery(config, project)


def close(patience: float = 60) -> None:
    """Release what the run holds; wait at most `patience` seconds for the tracker."""
    _current.close(patience)
