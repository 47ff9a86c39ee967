"""Delivers one journal to MLflow: each event of it once."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kafal_pipeline.common.errors import UserError, masked
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.tracking import view
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM
from kafal_pipeline.tracking.journal import Entry, project_of, read
from kafal_pipeline.tracking.progress import Progress

if TYPE_CHECKING:
    from kafal_pipeline.tracking.deliver.mlflow_run import Store

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

BATCHED = ("metrics", "tags")
"""Events that go in batches."""

FILES = ("artifact", "model")
"""Events that may come later than what follows them: where a file cannot be taken, numbers and the run's end can."""

PAUSE = 5.0
"""Seconds for which these wait for others while the run goes on: every batch costs it a moment."""


class Addresses(NamedTuple):
    """Where to deliver: as `given` on the command line, else as the journal says.

    An address with credentials is not in the journal, which says only that there was one: then it is `environment`,
    what MLFLOW_TRACKING_URI says.
    """

    given: str | None
    environment: str | None

    def of(self, start: Mapping[str, Any], journal: Path) -> str | None:
        """Return the address for a journal with this first event; None is the store in the project's folder.

        Raises
        ------
        UserError
            If it had credentials, and is not given now.
        """
        hidden = start["uri_hidden"]
        if hidden and not (self.given or self.environment):
            raise UserError(
                f"{journal}: the run was started with a tracker's address that holds credentials, which are not "
                "written down. Set MLFLOW_TRACKING_URI to it, or give it with --uri."
            )
        return self.given or start["uri"] or (self.environment if hidden else None)


class Delivery:
    """One journal on its way to the tracker."""

    def __init__(self, journal: Path, addresses: Addresses) -> None:
        self._path = journal
        self._addresses = addresses
        self._store: Store | None = None
        self._moved = ("", "")
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
            problem = self._deliver_pending(store) if over else None
            entries = read(self._path)
            new = [entry for entry in entries if entry.end > self.progress.journal]
            problem = self._deliver(store, new, "journal") or problem
            # Not before the first accuracy: MLflow compares runs by the metric that came first.
            if over or any(entry.event["type"] == "metrics" for entry in entries):
                self._deliver(store, read(self._system, self.progress.system), "system")
            if over and not self.progress.complete:
                self._conclude(store, live)
            if problem is not None:
                raise problem
            self._taken = not self.progress.pending
        except UserError:
            raise
        except Exception as error:
            self._note_problem(error)
            return False
        finally:
            self._next = time.monotonic() + PAUSE
        if self.progress.problem and not self.progress.pending:
            self.progress.problem = None
            self._save()
        return not self.progress.pending

    def _connected(self) -> Store | None:
        """Return the run in the tracker; None while the journal is empty."""
        from kafal_pipeline.tracking.deliver.mlflow_run import Store, connect

        if self._store is not None:
            return self._store
        entries = read(self._path)
        if not entries:
            return None
        written = entries[0].event
        start = {**written, "project": str(project_of(self._path, written))}
        self._moved = (f"{written['project']}/", f"{start['project']}/")
        uri = self._addresses.of(start, self._path)
        address = masked(connect(start, uri))
        if self.progress.store != address:  # a run's id means nothing to another tracker
            self.progress = Progress(store=address)
        self._store = Store(start, uri, self.progress.run_id)
        if self.progress.run_id != self._store.run_id:  # it is new, or the tracker has lost it
            page = view.page(self._store.experiment_id)
            self.progress = Progress(store=address, run_id=self._store.run_id, page=page)
            self._save()
        return self._store

    def _deliver(self, store: Store, entries: Sequence[Entry], which: str) -> Exception | None:
        """Deliver entries in their order, neighbouring numbers in one batch; return why a file has to wait."""
        position, problem = 0, None
        while position < len(entries):
            end = position
            while end < len(entries) and entries[end].event["type"] in BATCHED:
                end += 1
            batch = [entry.event for entry in entries[position:end]]
            if batch:
                self._log(store, batch)
            else:
                event, end = entries[position].event, position + 1
                begin = entries[position - 1].end if position else getattr(self.progress, which)
                problem = self._apply(store, event, begin) or problem
                self.progress.complete = False
            setattr(self.progress, which, entries[end - 1].end)
            self._save()
            position = end
        return problem

    def _deliver_pending(self, store: Store) -> Exception | None:
        """Try the files again that had to wait; return why one still has to."""
        problem = None
        for begin in list(self.progress.pending):
            failed = self._apply(store, read(self._path, begin)[0].event, begin)
            if failed is None:
                self.progress.pending.remove(begin)
                self._save()
            problem = failed or problem
        return problem

    def _apply(self, store: Store, event: Mapping[str, Any], begin: int) -> Exception | None:
        """Apply an event; a file that cannot be taken, though the tracker answers, has to wait: return why."""
        old, new = self._moved
        if event.get("path", "").startswith(old):
            event = {**event, "path": new + event["path"].removeprefix(old)}
        try:
            self._try(store, lambda: store.apply(event))
        except Exception as error:
            if event["type"] not in FILES:
                raise
            store.check()
            if begin not in self.progress.pending:
                self.progress.pending.append(begin)
            return error
        return None

    def _log(self, store: Store, batch: Sequence[Mapping[str, Any]]) -> None:
        """Apply numbers and tags; where the tracker refuses one, the others are applied one by one."""
        if self._try(store, lambda: store.log(batch), note=False):
            return
        for event in batch:
            for key, value in event["values"].items():
                one = {**event, "values": {key: value}}
                self._try(store, lambda: store.log([one]))  # noqa: B023 - called at once

    def _try(self, store: Store, action: Callable[[], None], *, note: bool = True) -> bool:
        """Do it and return True; what the tracker can never be given is noted, so that it does not hold up the rest."""
        from kafal_pipeline.tracking.deliver.mlflow_run import in_vain

        try:
            action()
        except Exception as error:
            if not in_vain(error):
                raise
            store.check()  # a run that was deleted refuses everything, until it is restored
            reason = masked(str(error))
            if note and reason not in self.progress.skipped:
                self.progress.skipped.append(reason)
                logger.warning("left out: %s", reason)
            return False
        return True

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
        from kafal_pipeline.tracking.deliver.mlflow_run import explain

        problem = explain(error, self.progress.store)
        if problem != self.progress.problem:
            logger.warning("%s", masked("".join(traceback.format_exception(error))))
            self.progress.problem = problem
            self._save()
