"""What is asked in one run, in the order in which people see it, and how far it is."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.page.ledger import Ledger
from kafal_pipeline.annotation.requests import MANIFEST, Asked, Request
from kafal_pipeline.annotation.verdicts import COUNTED
from kafal_pipeline.common.errors import UserError, did_you_mean

LOOK_AGAIN = 1.0
"""Seconds between two looks for new requests."""


@dataclass(frozen=True)
class Item:
    """One image to be labelled, and the latest request that asks for it."""

    asked: Asked
    request: Request

    @property
    def order(self) -> tuple[int, bool, int, int]:
        """Where it stands: clients in order, test images first, then by cycle and rank."""
        return self.request.client, self.asked.part != "test", self.request.cycle, self.asked.rank


class Board:
    """The run's requests and what has been answered, kept up to date.

    Attributes
    ----------
    items
        All images that are asked for, by id, in order.
    waiting
        Those of them that still wait for somebody, conflicts included, in order.
    counts
        For each client how many images of its newest request have each outcome, ``open`` included; what is open of
        earlier requests is in that one too.
    names
        What each client is called.
    classes
        Those of the newest request.
    """

    def __init__(self, desk: Desk, client: int | str | None) -> None:
        self.ledger = Ledger(desk.store, desk.config.annotators)
        self.items: dict[str, Item] = {}
        self.waiting: dict[str, Item] = {}
        self.counts: dict[int, Counter[str]] = {}
        self.names: dict[int, str] = {}
        self.classes: tuple[str, ...] = ()
        self._desk, self._client = desk, client
        self._outcomes: dict[str, str] = {}
        self._counted: set[str] = set()
        self._manifests: object = None
        self._look_again = 0.0

    def refresh(self) -> None:
        """Take in new requests and answers.

        Raises `UserError` if there is no such client, or if a file is damaged.
        """
        if time.monotonic() >= self._look_again:
            self._read_requests()
            self._look_again = time.monotonic() + LOOK_AGAIN
        self._note(self.ledger.refresh())

    def _read_requests(self) -> None:
        found = [
            (path, status.st_ino, status.st_mtime_ns)
            for path in sorted(self._desk.folder.glob(f"cycle_*/client_*/{MANIFEST}"))
            for status in (path.stat(),)
        ]
        if found == self._manifests:
            return
        requests = sorted(self._desk.requests(), key=lambda request: request.cycle)
        chosen = of_client(requests, self._client)
        latest = {asked.sample: Item(asked, request) for request in chosen for asked in request.samples}
        self.items = {item.asked.sample: item for item in sorted(latest.values(), key=lambda item: item.order)}
        self.classes = requests[-1].classes if requests else ()
        self.names = {request.client: request.who for request in chosen}
        newest = {request.client: request for request in chosen}
        self._counted = {asked.sample for request in newest.values() for asked in request.samples}
        self._outcomes, self.counts, self.waiting = {}, {client: Counter() for client in newest}, {}
        self._note(self.items)
        self._manifests = found

    def _note(self, changed: Iterable[str]) -> None:
        """Take in what holds of some images now."""
        again = False
        for sample in changed:
            if sample not in self.items:
                continue
            item, outcome = self.items[sample], self.ledger.verdict(sample).outcome
            again = again or (sample in self._outcomes and outcome not in COUNTED and sample not in self.waiting)
            if sample in self._counted:
                counts = self.counts[item.request.client]
                counts[outcome] += 1
                if sample in self._outcomes:
                    counts[self._outcomes[sample]] -= 1
            self._outcomes[sample] = outcome
            if outcome in COUNTED:
                self.waiting.pop(sample, None)
            else:
                self.waiting[sample] = item
        if again:  # an answer was withdrawn: its image waits where it stood
            self.waiting = {sample: item for sample, item in self.items.items() if sample in self.waiting}


def of_client(requests: Sequence[Request], client: int | str | None) -> list[Request]:
    """Return the requests to one client, given by number or name; all if None.

    Raises `UserError` if none of them is to that client.
    """
    if client is None:
        return list(requests)
    chosen = [request for request in requests if str(client) in (str(request.client), request.client_name)]
    if requests and not chosen:
        known = {request.client_name or str(request.client) for request in requests}
        raise UserError(
            f"annotation.client: found {client!r}, of which nothing is asked. {did_you_mean(client, known)}"
        )
    return chosen
