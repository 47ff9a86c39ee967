"""Lists the images that one run asks for, in the order in which people see them, and how far they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.page.ledger import Ledger
from kafal_pipeline.annotation.requests import MANIFEST, Asked, Request, latest
from kafal_pipeline.annotation.verdicts import COUNTED, DECLINED, Outcome
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
    known
        These and those in reserve: answers to these are answers too.
    waiting
        The images that still wait for somebody, conflicts included, in order.
    counts
        For each client how many images have each outcome, ``open`` included: those of the newest cycle's requests, and
        what else waits, such as an answer to an earlier one that was withdrawn.
    names
        What each client is called.
    classes
        Those of the newest request.
    """

    def __init__(self, desk: Desk, client: int | str | None) -> None:
        self.ledger = Ledger(desk.store, desk.config.annotators)
        self.items: dict[str, Item] = {}
        self.known: dict[str, Item] = {}
        self.waiting: dict[str, Item] = {}
        self.counts: dict[int, Counter[str]] = {}
        self.names: dict[int, str] = {}
        self.classes: tuple[str, ...] = ()
        self._desk, self._client = desk, client
        self._requests: list[Request] = []
        self._outcomes: dict[str, Outcome] = {}
        self._counted: dict[str, int] = {}  # images that `counts` counts, and their clients
        self._manifests: object = None
        self._look_again = 0.0

    def refresh(self) -> None:
        """Take in new requests and answers.

        Raises `UserError` if there is no such client, or if a file is damaged.
        """
        others = False
        if time.monotonic() >= self._look_again:
            others = self._read_requests()
            self._look_again = time.monotonic() + LOOK_AGAIN
        changed = self.ledger.refresh()
        if others or not self._note(sample for sample in changed if sample in self.items):
            self._order()

    def is_done(self, client: int, complete: float) -> bool:
        """Tell whether a client has answered the share `complete` of what the newest cycle asks for."""
        newest = [request for request in latest(self._requests) if request.client == client]
        return all(request.is_done(self.ledger.verdicts, complete) for request in newest)

    def _read_requests(self) -> bool:
        """Read the requests if their files are others than before, and tell whether they are."""
        found = [
            (path, status.st_ino, status.st_mtime_ns)
            for path in sorted(self._desk.folder.glob(f"cycle_*/client_*/{MANIFEST}"))
            for status in (path.stat(),)
        ]
        if found == self._manifests:
            return False
        requests = self._desk.requests()
        self._requests = of_client(requests, self._client)
        self.classes = requests[-1].classes if requests else ()
        self._manifests = found
        return True

    def _order(self) -> None:
        """Find out what is asked for now; where images are held in reserve, this changes as others are declined."""
        self.items, self.known, self._counted, self._outcomes = {}, {}, {}, {}
        for request in self._requests:
            self.known |= {asked.sample: Item(asked, request) for asked in request.all}
            for asked in request.asked(self.ledger.verdicts):
                self.items[asked.sample] = self.known[asked.sample]
        self.items = dict(sorted(self.items.items(), key=lambda entry: entry[1].order))
        self.names = {request.client: request.who for request in self._requests}
        last = max((request.cycle for request in self._requests), default=0)
        newest = {asked.sample for request in self._requests if request.cycle == last for asked in request.all}
        self._counted = {
            sample: item.request.client
            for sample, item in self.items.items()
            if sample in newest or self.ledger.verdict(sample).outcome not in COUNTED
        }
        self.counts = {client: Counter() for client in self._counted.values()}
        self.waiting = {}
        self._note(self.items)

    def _note(self, changed: Iterable[str]) -> bool:
        """Take in what holds of some images now; tell whether the same images are asked for in the same order."""
        same = True
        for sample in changed:
            item, before = self.items[sample], self._outcomes.get(sample)
            outcome = self._outcomes[sample] = self.ledger.verdict(sample).outcome
            if sample in self._counted:
                counts = self.counts[self._counted[sample]]
                counts[outcome] += 1
                if before is not None:
                    counts[before] -= 1
            if outcome in COUNTED:
                self.waiting.pop(sample, None)
            elif sample not in self.waiting:
                self.waiting[sample] = item
                same = same and before is None  # an answer was withdrawn: its image waits where it stood
            if before is not None and item.request.reserve and (before in DECLINED) != (outcome in DECLINED):
                same = False
        return same


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
