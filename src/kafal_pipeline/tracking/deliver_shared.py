"""Delivers the journals of several runs while they are written: the helper of `kafal_pipeline.tracking.shared`.

Standard input names them, one JSON object a line: ``{"follow": <journal>}``, and ``{"over": <journal>}`` when its
run has ended. Its end is the end of all runs. Exit code: 0 when everything is delivered, 75 when some must be tried
later.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock, Timeout

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.tracking.deliver.__main__ import LOCK, RETRY, TRY_LATER, give_way, set_environment, start_sampler
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

PATIENCE = 15.0
"""Seconds to go on trying once all runs are over."""


class _Followed:
    """One journal, held by this process."""

    def __init__(self, journal: Path, addresses: Addresses) -> None:
        self._lock = FileLock(journal.with_name(LOCK), timeout=5)
        self._lock.acquire()
        self._delivery = Delivery(journal, addresses)
        self._sampler = start_sampler(journal)
        self._over = False
        self._next = 0.0

    def end(self) -> None:
        """Note that its run has ended."""
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        self._over, self._next = True, 0.0

    def attempt(self) -> bool:
        """Deliver what is due; return whether the run is over and all of it delivered."""
        if not (time.monotonic() >= self._next if self._over else self._delivery.due()):
            return False
        self._next = time.monotonic() + RETRY
        if not self._delivery.attempt(over=self._over, live=True) or not self._over:
            return False
        self._lock.release()
        return True


def deliver(addresses: Addresses, messages: SimpleQueue[dict[str, str] | None], pause: float = 0.5) -> bool:
    """Deliver journals as `messages` name them; None is the end. Return whether everything is delivered."""
    followed: dict[str, _Followed] = {}
    deadline, whole = None, True
    while deadline is None or followed:
        while not messages.empty():
            message = messages.get()
            if message is None:
                deadline = time.monotonic() + PATIENCE
                for item in followed.values():
                    item.end()
            elif "follow" in message:
                whole &= _take(followed, message["follow"], addresses)
            elif message["over"] in followed:
                followed[message["over"]].end()
        for path in list(followed):
            try:
                delivered = followed[path].attempt()
            except UserError:
                logger.exception("%s cannot be delivered", path)
                delivered, whole = True, False
            if delivered:
                del followed[path]
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(pause)
    return whole and not followed


def main() -> int:
    """Deliver what standard input names, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    addresses = Addresses(None, os.environ.get("MLFLOW_TRACKING_URI"))
    set_environment()
    give_way()
    messages: SimpleQueue[dict[str, str] | None] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            messages.put(json.loads(line))
        messages.put(None)

    threading.Thread(target=listen, name="standard input", daemon=True).start()
    return 0 if deliver(addresses, messages) else TRY_LATER


def _take(followed: dict[str, _Followed], path: str, addresses: Addresses) -> bool:
    try:
        followed[path] = _Followed(Path(path), addresses)
    except Timeout:
        logger.warning("%s: another process is delivering it", path)
        return False
    except UserError as error:
        logger.warning("%s cannot be delivered: %s", path, error)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
