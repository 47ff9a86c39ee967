"""Delivers one journal to MLflow: each event of it once."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kafal_pipeline.common.errors import UserError, masked
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.tracking import view
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM
from kafal_pipeline.tracking.journal import Entry, first, project_of, read
from kafal_pipeline.tracking.progress import Progress

if TYPE_CHECKING:
    from kafal_pipeline.tracking.deliver.mlflow_run import Store

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

BATCHED = ("metrics", "tags")
FILES = ("artifact", "model")  # may come later than what follows: where one cannot be taken, the run's end still can
MASK = "***"  # what `masked` puts in the place of credentials
PAUSE = 5.0  # seconds for which batched events wait for others while the run continues: every batch costs it a moment


class Addresses(NamedTuple):
    """Where to deliver: as `given` on the command line, else as the journal says.

    A journal holds no credentials: an address with some is what `environment`, MLFLOW_TRACKING_URI, says.
    """

    given: str | None
    environment: str | None

    def of(self, start: Mapping[str, Any], journal: Path) -> str | None:
        """Return the address for a journal with this first event; None is the store in the project's folder."""
        uri = self.given or start["uri"]
        if uri is None or MASK not in uri:
            return uri
        if uri != masked(self.environment or ""):
            raise UserError(
                f"{journal}: the run was started with a tracker's address that holds credentials, which are not "
                f"written down ({uri}). Set MLFLOW_TRACKING_URI to it, or give it with --uri."
            )
        return self.environment


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
        """Return whether it is time for an attempt while the run continues: `PAUSE` after the last one, or for a file.

        After an attempt that failed, files wait as well.
        """
        if time.monotonic() >= self._next:
            return True
        return self._taken and any(e.event["type"] not in BATCHED for e in read(self._path, self.progress.journal))

    def attempt(self, over: bool, live: bool) -> bool:
        """Deliver what is new and return whether the tracker took it all.

        A journal without an end event, of a run that is `over`, means that it was killed; `live`: just now.
        """
        self._taken, progress = False, self.progress
        try:
            store = self._connected()
            if store is None:
                return True
            progress, entries, problem = self.progress, read(self._path), None
            for begin in list(progress.pending) if over else []:
                problem = self._apply(store, read(self._path, begin)[0].event, begin) or problem
            new = [entry for entry in entries if entry.end > progress.journal]
            problem = self._deliver(store, new) or problem
            # Not before the first accuracy, which is to come of one that waits: MLflow compares by what came first.
            waits = bool(entries) and entries[-1].event.get("status") == "SCHEDULED"
            numbers = (over and not waits) or any(entry.event["type"] == "metrics" for entry in entries)
            if samples := read(self._system, progress.system) if numbers else []:
                self._log(store, [entry.event for entry in samples])
                progress.system = samples[-1].end
                self._save()
            if over and not progress.complete:
                self._conclude(store, live)
            if problem is not None:
                raise problem
        except UserError:
            raise
        except Exception as error:
            self._note_problem(error)
            return False
        finally:
            self._next = time.monotonic() + PAUSE
        self._taken = not progress.pending
        if self._taken and progress.problem:
            progress.problem = None
            self._save()
        return self._taken

    def _connected(self) -> Store | None:
        """Return the run in the tracker; None while the journal is empty."""
        from kafal_pipeline.tracking.deliver.mlflow_run import Store, connect

        if self._store is not None:
            return self._store
        if not (written := first(self._path)):
            return None
        start = {**written, "project": str(project_of(self._path, written))}
        self._moved = (f"{written['project']}/", f"{start['project']}/")
        uri = self._addresses.of(start, self._path)
        address = masked(connect(start, uri))
        if self.progress.store != address:  # a run's id means nothing to another tracker
            self.progress = Progress(store=address)
        self._store = Store(start, uri)
        if self.progress.run_id != self._store.run_id:  # it is new, or the tracker has lost it
            page = view.page(self._store.experiment_id)
            self.progress = Progress(store=address, run_id=self._store.run_id, page=page)
            self._save()
        return self._store

    def _deliver(self, store: Store, entries: Sequence[Entry]) -> Exception | None:
        """Deliver entries in their order, neighbouring numbers in one batch; return why a file has to wait."""
        problem = None
        for batched, group in groupby(entries, lambda entry: entry.event["type"] in BATCHED):
            for part in [list(group)] if batched else [[entry] for entry in group]:
                if batched:
                    self._log(store, [entry.event for entry in part])
                else:
                    problem = self._apply(store, part[0].event, self.progress.journal) or problem
                    self.progress.complete = False
                self.progress.journal = part[-1].end
                self._save()
        return problem

    def _apply(self, store: Store, event: Mapping[str, Any], begin: int) -> Exception | None:
        """Apply the event at byte `begin`; return why a file cannot be taken, though the tracker answers: it waits."""
        old, new = self._moved
        if event.get("path", "").startswith(old):
            event = {**event, "path": new + event["path"].removeprefix(old)}
        waiting = begin in self.progress.pending
        try:
            self._try(store, lambda: store.apply(event))
        except Exception as error:
            if event["type"] not in FILES:
                raise
            store.check()
            if not waiting:
                self.progress.pending.append(begin)
            return error
        if waiting:
            self.progress.pending.remove(begin)
            self._save()
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
