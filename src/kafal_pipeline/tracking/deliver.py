"""Deliver journals to MLflow: `python -m kafal_pipeline.tracking.deliver <journal or folder> ...`.

A run starts this as its helper (`--follow`); a user starts it to deliver what a tracker that was down did not get.
What is delivered already is not delivered again. Exit code: 0 when everything is, 75 when some must be tried later.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock, Timeout

from kafal_pipeline.errors import UserError, masked
from kafal_pipeline.files import CannotWrite
from kafal_pipeline.tracking.journal import COMPARISONS, JOURNAL, Entry, read
from kafal_pipeline.tracking.model import prepare
from kafal_pipeline.tracking.progress import Progress
from kafal_pipeline.tracking.system import SYSTEM, SystemSampler

if TYPE_CHECKING:
    from kafal_pipeline.tracking.store import Store

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

TRY_LATER = 75
"""Exit code, as in sysexits.h: a temporary failure."""

LOCK = "delivered.lock"
"""Name of the file, beside the journal, that one delivery at a time holds."""

NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own seven retries take minutes; the journal makes them needless."""

SETTLE = 2.5
"""Seconds in which a run that begins has the machine for itself: importing MLflow would slow down its own imports."""

BATCHED = ("metrics", "tags")


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

    def attempt(self, over: bool, live: bool) -> bool:
        """Deliver what is new and return whether the tracker took it all.

        Parameters
        ----------
        over
            Whether the run has ended, so that a journal without an end event means that it was killed.
        live
            Whether it was killed just now.
        """
        try:
            store = self._connected()
            if store is None:
                return True
            self._deliver(store, read(self._system, self.progress.system), "system")
            self._deliver(store, read(self._path, self.progress.journal), "journal")
            if over and not self.progress.complete:
                self._conclude(store, live)
        except UserError:
            raise
        except Exception as error:
            self._note_problem(error)
            return False
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


def follow(journal: Path, addresses: Addresses, gone: threading.Event, patience: float, pause: float = 0.5) -> bool:
    """Deliver a journal while it is written, until `gone` is set and all is delivered, or `patience` is at its end.

    Returns whether everything is delivered.
    """
    delivery = Delivery(journal, addresses)
    gone.wait(SETTLE)
    sampler = SystemSampler(journal.with_name(SYSTEM)) if read(journal)[0].event["system_metrics"] else None
    prepared = False
    while not gone.is_set():
        taken = delivery.attempt(over=False, live=True)
        if taken and not prepared:  # there is time now
            prepare()
            prepared = True
        gone.wait(pause if taken else 4 * pause)
    if sampler:
        sampler.stop()
    deadline = time.monotonic() + patience
    while not delivery.attempt(over=True, live=True):
        if time.monotonic() > deadline:
            return False
        time.sleep(4 * pause)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kafal_pipeline.tracking.deliver", description="Deliver to MLflow.")
    parser.add_argument("paths", nargs="+", type=Path, help="journals, or folders in which to look for them")
    parser.add_argument("--uri", help="the tracker's address (default: the one the run was started with)")
    parser.add_argument("--follow", action="store_true", help="follow one journal until standard input ends")
    parser.add_argument("--patience", type=float, default=15, help="seconds to go on trying after that")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    addresses = Addresses(options.uri, os.environ.get("MLFLOW_TRACKING_URI"))
    set_environment()
    try:
        journals = _journals(options.paths)
        if options.follow:
            if hasattr(os, "nice"):
                os.nice(5)  # the run's own processes come first
            with FileLock(journals[0].with_name(LOCK)):
                return 0 if follow(journals[0], addresses, _end_of_input(), options.patience) else TRY_LATER
        delivered = [_deliver_late(journal, addresses) for journal in journals]
        return 0 if all(delivered) else TRY_LATER
    except UserError as error:
        logger.error("%s", error)
        return 1


def set_environment() -> None:
    """Switch off MLflow's telemetry and the patience that the journal makes needless."""
    os.environ.update(NO_TELEMETRY)
    for name, value in HTTP.items():
        os.environ.setdefault(name, value)


def _deliver_late(journal: Path, addresses: Addresses) -> bool:
    """Deliver the journal of a run that is over; return whether everything is delivered."""
    progress = Progress.load(journal.parent)
    if progress.complete and progress.journal == journal.stat().st_size and not addresses.given:
        logger.info("%s: all of it is delivered already", journal)
        return True
    try:
        with FileLock(journal.with_name(LOCK), timeout=5):
            delivery = Delivery(journal, addresses)
            taken = delivery.attempt(over=True, live=False)
    except Timeout:
        logger.warning("%s: another process is delivering it", journal)
        return False
    if taken:
        logger.info("%s: delivered to %s, run %s", journal, delivery.progress.store, delivery.progress.run_id)
    return taken


def _journals(paths: Sequence[Path]) -> list[Path]:
    """Return the journals that the paths name, as absolute paths: the delivery changes the working directory.

    Those of comparisons come last: they give tags to their runs, which the tracker must have by then.
    """
    found = [journal for path in paths for journal in (sorted(path.rglob(JOURNAL)) if path.is_dir() else [path])]
    for journal in found:
        if not journal.is_file():
            raise UserError(f"{journal}: there is no such journal. Name a file {JOURNAL}, or a folder that holds some.")
    resolved = [journal.resolve() for journal in found]
    return sorted(resolved, key=lambda journal: journal.parts[-4:-3] == (COMPARISONS,))


def _end_of_input() -> threading.Event:
    """Return an event that is set when standard input ends: the process at its other end is gone, however it went."""
    gone = threading.Event()

    def wait() -> None:
        while os.read(0, 1024):
            pass
        gone.set()

    threading.Thread(target=wait, name="end of input", daemon=True).start()
    return gone


if __name__ == "__main__":
    sys.exit(main())
