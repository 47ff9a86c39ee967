"""Follows journals, of one run or many, and delivers what is due until all of them are over."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock, Timeout

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM, SystemSampler
from kafal_pipeline.tracking.journal import first, project_of
from kafal_pipeline.tracking.progress import Progress

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

TRY_LATER = 75  # exit code, as in sysexits.h: a temporary failure
LOCK = "delivered.lock"  # the file, next to the journal, that one delivery at a time holds
SETTLE = 1.0  # seconds that a run which begins has the machine for itself: MLflow's import would slow down its own
LOOK = 0.25  # seconds between two looks at whether there is something to deliver
RETRY = 2.0  # seconds between two attempts at the end of a run

Messages = SimpleQueue[dict[str, str] | None]
"""``{"follow": <journal>}``; ``{"over": <journal>}`` when its run has ended; None when all have."""


def follow(messages: Messages, addresses: Addresses, patience: float, *, live: bool = True) -> int:
    """Deliver journals while they are written, and return the exit code: 0 when everything is delivered.

    It keeps trying for `patience` seconds once all runs are over. Runs that are not `live` are over already.
    """
    followed: dict[str, _Followed] = {}
    codes, deadline = [0], None
    while deadline is None or followed:
        while not messages.empty():
            message = messages.get()
            if message is None:
                deadline = time.monotonic() + patience
                for item in followed.values():
                    item.end()
            elif "follow" in message:
                followed[message["follow"]] = _Followed(Path(message["follow"]), addresses, live)
            elif message["over"] in followed:
                followed[message["over"]].end()
        for path, item in list(followed.items()):
            code = item.step()
            if code is not None:
                codes.append(code)
                followed.pop(path).release()
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(LOOK)
    for item in followed.values():
        item.release()
        codes.append(TRY_LATER)
    return 1 if 1 in codes else max(codes)


class _Followed:
    """One journal, held by this process."""

    def __init__(self, path: Path, addresses: Addresses, live: bool) -> None:
        self._path, self._addresses, self._live, self._over = path, addresses, live, not live
        self._lock = FileLock(path.with_name(LOCK), timeout=0)
        self._next = time.monotonic() + SETTLE if live else 0.0
        self._delivery: Delivery | None = None
        self._sampler: SystemSampler | None = None

    def end(self) -> None:
        """Note that its run has ended."""
        self._over, self._next = True, 0.0
        self._stop_sampling()

    def release(self) -> None:
        """Leave the journal to others."""
        self._stop_sampling()
        self._lock.release()

    def step(self) -> int | None:
        """Deliver what is due; return the exit code once the run is over and the journal done with."""
        due = self._next <= time.monotonic() if self._over or self._delivery is None else self._delivery.due()
        if not due:
            return None
        self._next = time.monotonic() + RETRY
        try:
            return self._attempt()
        except Timeout:
            logger.warning("%s: another process is delivering it", self._path)
            return None
        except UserError as error:
            logger.error("%s cannot be delivered: %s", self._path, error)
            return 1

    def _attempt(self) -> int | None:
        if self._over and self._delivery is None and self._is_delivered():
            return 0
        if self._delivery is None:
            self._lock.acquire()
            self._delivery = Delivery(self._path, self._addresses)
            if self._live:
                self._sampler = _sampler(self._path)
            if self._over:  # a run of a second or two has one sample
                self._stop_sampling()
        if not self._delivery.attempt(self._over, self._live) or not self._over:
            return None
        logger.info("%s: delivered to %s", self._path, self._delivery.progress.store)
        return 0

    def _stop_sampling(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    def _is_delivered(self) -> bool:
        """Return whether the tracker has all of it already, which takes no MLflow to know."""
        start, store = first(self._path), Progress.load(self._path.parent).store
        moved = bool(start) and project_of(self._path, start) != Path(start["project"])
        elsewhere = self._addresses.given or start.get("uri") not in {None, store}  # delivered to another since
        if moved or elsewhere or not Progress.whole(self._path):
            return False
        logger.info("%s: all of it is delivered already, to %s. To deliver it again, give --uri", self._path, store)
        return True


def _sampler(journal: Path) -> SystemSampler | None:
    """Sample the machine if the journal's run wants it; None too where that cannot be written down."""
    try:
        return SystemSampler(journal.with_name(SYSTEM)) if first(journal)["system_metrics"] else None
    except (UserError, CannotWrite) as error:
        logger.warning("no system metrics: %s", error)
        return None
