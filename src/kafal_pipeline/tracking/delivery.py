"""One journal on its way to MLflow: what is new in it goes there, once."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kafal_pipeline.errors import UserError, masked
from kafal_pipeline.files import CannotWrite
from kafal_pipeline.tracking.journal import Entry, read
from kafal_pipeline.tracking.progress import Progress
from kafal_pipeline.tracking.system import SYSTEM

if TYPE_CHECKING:
    from kafal_pipeline.tracking.store import Store

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

BATCHED = ("metrics", "tags")
"""Events that go in batches."""

PAUSE = 5.0
"""Seconds for which these wait for others while the run goes on: every batch costs it a moment."""


class Addresses(NamedTuple):
    """Where to deliver: as `given` on the command line, else as the journal says, else as MLFLOW_TRACKING_URI says."""

    given: str | None
    environment: str | None


class Delivery:
    """One journal on its way to the tracker."""

    def __init__(self, journal: Path, addresses: Addresses) -> None:
        self._path = journal
        self._addresses = addresses
        self._store: Store | None = None
        self._system = journal.with_name(SYSTEM)
        self.progress = Progress.load(journal.parent)
        self._next = 0.0
        self._taken = False

    def due(self) -> bool:
        """Return whether it is time for an attempt while the run goes on: `PAUSE` after the last one, or for a file.

        After an attempt that failed, files wait as well.
        """
        if time.monotonic() >= self._next:
            return True
        return self._taken and any(e.event["type"] not in BATCHED for e in read(self._path, self.progress.journal))

    def attempt(self, over: bool, live: bool) -> bool:
        """Deliver what is new and return whether the tracker took it all.

        Parameters
        ----------
        over
            Whether the run has ended, so that a journal without an end event means that it was killed.
        live
            Whether it was killed just now.
        """
        self._taken = False
        try:
            store = self._connected()
            if store is None:
                return True
            self._deliver(store, read(self._system, self.progress.system), "system")
            self._deliver(store, read(self._path, self.progress.journal), "journal")
            if over and not self.progress.complete:
                self._conclude(store, live)
            self._taken = True
        except UserError:
            raise
        except Exception as error:
            self._note_problem(error)
            return False
        finally:
            self._next = time.monotonic() + PAUSE
        if self.progress.problem:
            self.progress.problem = None
            self._save()
        return True

    def _connected(self) -> Store | None:
        """Return the run in the tracker; None while the journal is empty."""
        from kafal_pipeline.tracking.store import Store, connect  # noqa: PLC0415 - imports mlflow, seconds

        if self._store is not None:
            return self._store
        entries = read(self._path)
        if not entries:
            return None
        start = entries[0].event
        uri = self._addresses.given or start["uri"] or self._addresses.environment
        address = masked(connect(start, uri))
        if self.progress.store != address:  # a run's id means nothing to another tracker
            self.progress = Progress(store=address)
        self._store = Store(start, uri, self.progress.run_id)
        if self.progress.run_id != self._store.run_id:
            self.progress.run_id = self._store.run_id
            self._save()
        return self._store

    def _deliver(self, store: Store, entries: Sequence[Entry], which: str) -> None:
        """Deliver entries in their order, neighbouring numbers in one batch."""
        position = 0
        while position < len(entries):
            end = position
            while end < len(entries) and entries[end].event["type"] in BATCHED:
                end += 1
            batch = [entry.event for entry in entries[position:end]]
            if batch:
                self._try(lambda: store.log(batch))  # noqa: B023 - called at once
            else:
                event, end = entries[position].event, position + 1
                self._try(lambda: store.apply(event))  # noqa: B023 - called at once
                self.progress.complete = False
            setattr(self.progress, which, entries[end - 1].end)
            self._save()
            position = end

    def _try(self, action: Callable[[], None]) -> None:
        """Do it; what the tracker can never be given is noted and left out, so that it does not hold up the rest."""
        from kafal_pipeline.tracking.store import in_vain  # noqa: PLC0415 - imports mlflow, seconds

        try:
            action()
        except Exception as error:
            if not in_vain(error):
                raise
            self.progress.skipped.append(masked(str(error)))
            logger.warning("left out: %s", self.progress.skipped[-1])

    def _conclude(self, store: Store, live: bool) -> None:
        """Note that all is delivered; a run that says of no end was killed."""
        events = [entry.event for entry in read(self._path)]
        turns = [event["type"] for event in events if event["type"] in {"start", "restart", "end"}]
        if turns[-1] != "end":
            times = [entry.event["time"] for entry in read(self._system)] + [event["time"] for event in events]
            store.end("KILLED", None if live else max(times))
        self.progress.complete = True
        self._save()

    def _save(self) -> None:
        """Write down how far it is; where that fails, all since the last time is delivered again, to no effect."""
        try:
            self.progress.save(self._path.parent)
        except CannotWrite as error:
            logger.warning("%s", error)

    def _note_problem(self, error: Exception) -> None:
        from kafal_pipeline.tracking.store import explain  # noqa: PLC0415 - imports mlflow, seconds

        problem = explain(error, self.progress.store)
        if problem != self.progress.problem:
            logger.warning("%s", masked("".join(traceback.format_exception(error))))
            self.progress.problem = problem
            self._save()
