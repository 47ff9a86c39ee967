"""What a run holds beside its data: worker processes and the progress display. It never changes a result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from kafal_pipeline.config import Config
    from kafal_pipeline.data import ImageData
    from kafal_pipeline.federation.cycle import CycleState
    from kafal_pipeline.federation.workers import Workers

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 15.0
"""Where there is no terminal, a round is logged when the last line is older."""


class Runtime:
    """The resources of the run in this process, made on first use and released by `close`."""

    def __init__(self) -> None:
        self._workers: Workers | None = None
        self._made_for: tuple[Any, ...] | None = None
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._last_line = 0.0

    def workers(self, images: ImageData, config: Config) -> Workers:
        """Return the workers for this data and configuration; other ones end first."""
        from kafal_pipeline.federation.workers import Workers  # noqa: PLC0415 - torch takes seconds to import

        key = (str(images.folder) if images.folder else id(images), config.model_dump_json())
        if self._workers is None or self._made_for != key:
            self._close_workers()
            self._workers, self._made_for = Workers(images, config), key
            logger.debug("Training in %d processes.", self._workers.count)
        return self._workers

    def on_round(self, config: Config) -> Callable[[CycleState], None]:
        """Return what is called after every round."""
        rounds, cycles = config.federation.rounds, config.cycles

        def show(state: CycleState) -> None:
            losses = [row["loss"] for row in state.rows if row["round"] == state.round - 1]
            loss = sum(losses) / len(losses)
            text = f"cycle {state.cycle}/{cycles - 1}, round {state.round}/{rounds}, loss {loss:.4f}"
            progress = self._started(cycles * rounds)
            if progress is not None and self._bar is not None:
                progress.update(self._bar, completed=state.cycle * rounds + state.round, description=text)
            elif time.monotonic() - self._last_line > LOG_EVERY_SECONDS:
                self._last_line = time.monotonic()
                logger.info(text)

        return show

    def on_evaluation(self, config: Config, cycle: int, labels: int, accuracy: float) -> None:
        """Say what a cycle reached."""
        self._last_line = time.monotonic()
        logger.info("cycle %d/%d: %d labels, accuracy %.2f %%", cycle, config.cycles - 1, labels, 100 * accuracy)

    def _started(self, total: int) -> Progress | None:
        """Return the progress bar, started; None where there is no terminal."""
        if self._progress is None:
            from rich import get_console  # noqa: PLC0415 - only where something is shown
            from rich.progress import (  # noqa: PLC0415
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

    def _close_workers(self) -> None:
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def close(self) -> None:
        """End the processes and the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._close_workers()


_current = Runtime()


def workers(images: ImageData, config: Config) -> Workers:
    """Return the run's workers."""
    return _current.workers(images, config)


def on_round(config: Config) -> Callable[[CycleState], None]:
    """Return what is called after every round."""
    return _current.on_round(config)


def on_evaluation(config: Config, cycle: int, labels: int, accuracy: float) -> None:
    """Say what a cycle reached."""
    _current.on_evaluation(config, cycle, labels, accuracy)


def close() -> None:
    """Release what the run holds."""
    _current.close()
