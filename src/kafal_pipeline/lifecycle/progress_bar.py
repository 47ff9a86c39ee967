"""Progress of a run: a bar on a terminal, and lines of the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from kafal_pipeline.config import Config
    from kafal_pipeline.federation.between_rounds.cycle_state import CycleState

logger = logging.getLogger(__name__)

LOG_EVERY_SECONDS = 15.0
"""Age of the last line after which a round is logged, without a terminal."""


class ProgressBar:
    """Shows the progress of the run in this process, and calls `listener` with each cycle that has been evaluated."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._waiting: threading.Timer | None = None
        self.listener: Callable[[int], None] | None = None

    def on_round(self, config: Config) -> Callable[[CycleState], None]:
        """Return what is called after every round."""
        rounds, cycles = config.federation.rounds, config.cycles

        def show(state: CycleState) -> None:
            losses = [row["loss"] for row in state.rows if row["round"] == state.round - 1 and not row["failed"]]
            loss = sum(losses) / len(losses)
            text = f"cycle {state.cycle}/{cycles - 1}, round {state.round}/{rounds}, loss {loss:.4f}"
            shown = self._shows(text, state.cycle * rounds + state.round, cycles * rounds)
            if not shown and time.monotonic() - self._last_line > LOG_EVERY_SECONDS:
                self._last_line = time.monotonic()
                logger.info(text)

        return show

    def on_wait(self, config: Config, cycle: int) -> Callable[[list[int]], None]:
        """Return what is called with the clients whose queries are being waited for, whenever they are others."""
        rounds, cycles = config.federation.rounds, config.cycles

        def show(clients: list[int]) -> None:
            self._stop_waiting()
            names = f"client{'s' * (len(clients) > 1)} {', '.join(map(str, clients))}"
            text = f"cycle {cycle}/{cycles - 1}, waiting for the query of {names}"
            if clients and not self._shows(text, cycle * rounds, cycles * rounds):
                # A log has this line only where one is waited for long.
                self._waiting = threading.Timer(LOG_EVERY_SECONDS, logger.info, [text])
                self._waiting.daemon = True
                self._waiting.start()

        return show

    def on_evaluation(self, config: Config, cycle: int, labels: int, accuracy: float) -> None:
        """Say what a cycle reached."""
        self._last_line = time.monotonic()
        logger.info("cycle %d/%d: %d labels, accuracy %.2f %%", cycle, config.cycles - 1, labels, 100 * accuracy)
        if self.listener is not None:
            self.listener(cycle)

    def close(self) -> None:
        """End the bar, and what is still to be said."""
        self._stop_waiting()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _shows(self, text: str, completed: int, total: int) -> bool:
        """Show how far the run is on the bar, and tell whether there is one: only on a terminal."""
        from rich import get_console, progress  # only where something is shown

        if not get_console().is_terminal:
            return False
        if self._bar is None:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
                console=get_console(),
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("training", total=total)
        self._bar.update(self._bar.task_ids[0], completed=completed, description=text)
        return True
