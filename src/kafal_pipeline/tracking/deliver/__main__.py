"""Delivers journals to MLflow: `python -m kafal_pipeline.tracking.deliver <journal or folder> ...`.

A run starts this as its helper (`--follow`); a user starts it to deliver what a tracker that was down did not get.
What is delivered already is not delivered again. Exit code: 0 when everything is, 75 when some must be tried later.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM, SystemSampler
from kafal_pipeline.tracking.journal import COMPARISONS, JOURNAL, read
from kafal_pipeline.tracking.progress import Progress

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

TRY_LATER = 75
"""Exit code, as in sysexits.h: a temporary failure."""

LOCK = "delivered.lock"
"""Name of the file, beside the journal, that one delivery at a time holds."""

NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

HTTP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own seven retries take minutes; the journal makes them needless."""

SETTLE = 1.0
"""Seconds in which a run that begins has the machine for itself: importing MLflow would slow down its own imports."""

LOOK = 0.25
"""Seconds between two looks at whether there is something to deliver."""

RETRY = 2.0
"""Seconds between two attempts at the end of a run."""

COURTESY = 19
"""What the helper adds to its `nice` value: it takes what the run's processes leave, such as the ends of rounds. Where
others leave it nothing, the run puts another one in its place at its end (`kafal_pipeline.tracking.helper.wait`)."""


def follow(journal: Path, addresses: Addresses, gone: threading.Event, patience: float) -> bool:
    """Deliver a journal while it is written, until `gone` is set and all is delivered, or `patience` is at its end.

    Returns whether everything is delivered.
    """
    delivery = Delivery(journal, addresses)
    gone.wait(SETTLE)
    sampler = start_sampler(journal)
    while not gone.is_set():
        if delivery.due():
            delivery.attempt(over=False, live=True)
        gone.wait(LOOK)
    if sampler:
        sampler.stop()
    deadline = time.monotonic() + patience
    while not delivery.attempt(over=True, live=True):
        if time.monotonic() > deadline:
            return False
        time.sleep(RETRY)
    return True


def start_sampler(journal: Path) -> SystemSampler | None:
    """Start sampling the machine if the journal's run wants it; None too where that cannot be written down."""
    try:
        return SystemSampler(journal.with_name(SYSTEM)) if read(journal)[0].event["system_metrics"] else None
    except (UserError, CannotWrite) as error:
        logger.warning("no system metrics: %s", error)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kafal_pipeline.tracking.deliver", description="Deliver to MLflow.")
    parser.add_argument("paths", nargs="+", type=Path, help="journals, or folders in which to look for them")
    parser.add_argument("--uri", help="the tracker's address (default: the one the run was started with)")
    parser.add_argument("--follow", action="store_true", help="follow one journal until standard input ends")
    parser.add_argument("--patience", type=float, default=15, help="seconds to keep trying after that")
    parser.add_argument("--now", action="store_true", help="with the same right to the cores as others")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    addresses = Addresses(options.uri, os.environ.get("MLFLOW_TRACKING_URI"))
    set_environment()
    try:
        journals = _journals(options.paths)
        if options.follow:
            give_way(nice=not options.now)
            with FileLock(journals[0].with_name(LOCK)):
                return 0 if follow(journals[0], addresses, _end_of_input(), options.patience) else TRY_LATER
        codes = [_deliver_late(journal, addresses) for journal in journals]
        return max(codes, key=lambda code: (code == 1, code))
    except UserError as error:
        logger.error("%s", error)
        return 1


def set_environment() -> None:
    """Switch off MLflow's telemetry and the patience that the journal makes needless."""
    os.environ.update(NO_TELEMETRY)
    for name, value in HTTP.items():
        os.environ.setdefault(name, value)


def give_way(*, nice: bool = True) -> None:
    """Let the run's own processes have the cores first, if `nice`, and take less of them.

    Looking for garbage while MLflow is imported takes a quarter as long again; looking through all of it at the end,
    while the run waits, a second.
    """
    if nice and hasattr(os, "nice"):
        os.nice(COURTESY)
    gc.set_threshold(100_000, 50)
    atexit.register(gc.freeze)


def _deliver_late(journal: Path, addresses: Addresses) -> int:
    """Deliver the journal of a run that is over; return the exit code for it."""
    try:
        progress = Progress.load(journal.parent)
        start = next(iter(read(journal)), None)
        own = start is None or start.event["uri"] in {None, progress.store}  # not delivered to another since
        whole = progress.complete and not progress.pending and progress.journal == journal.stat().st_size
        if whole and own and not addresses.given:
            logger.info(
                "%s: all of it is delivered already, to %s. To deliver it again, give --uri", journal, progress.store
            )
            return 0
        with FileLock(journal.with_name(LOCK), timeout=5):
            delivery = Delivery(journal, addresses)
            taken = delivery.attempt(over=True, live=False)
    except Timeout:
        logger.warning("%s: another process is delivering it", journal)
        return TRY_LATER
    except UserError as error:
        logger.error("%s", error)
        return 1
    if taken:
        logger.info("%s: delivered to %s, run %s", journal, delivery.progress.store, delivery.progress.run_id)
    return 0 if taken else TRY_LATER


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
