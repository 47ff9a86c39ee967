"""Hands out images to people, and takes their answers: no image twice at a time, no answer lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafal_pipeline.annotation.answers import Answer, Status, now
from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.page.leases import Leases
from kafal_pipeline.annotation.page.ledger import Ledger
from kafal_pipeline.annotation.requests import MANIFEST, Asked, Request
from kafal_pipeline.annotation.verdicts import COUNTED
from kafal_pipeline.common.errors import UserError, did_you_mean

AHEAD = 3
"""Images that a page holds: the one that is shown, and those that it loads meanwhile."""

LOOK_AGAIN = 1.0
"""Seconds between two looks for new requests."""

LOOKED = 300.0
"""Seconds after which somebody has not been looking at one image all the time."""


class Taken(Exception):
    """Others have answered the image meanwhile; the message says who."""


@dataclass(frozen=True)
class Item:
    """One image to be labelled, and the latest request that asks for it."""

    asked: Asked
    request: Request

    @property
    def order(self) -> tuple[int, bool, int, int]:
        """Where it stands: clients in order, test images first, then by cycle and rank."""
        return self.request.client, self.asked.part != "test", self.request.cycle, self.asked.rank


@dataclass(frozen=True)
class Person:
    """Somebody at a page; a page is one tab of a browser."""

    name: str
    page: str


class Queue:
    """What is asked in one run, for the people of one client or of all.

    Parameters
    ----------
    desk
        The run's.
    client
        Its number or name; None for all.
    leases
        Who holds which image; other pages of the same run, in processes of their own, know of them too.

    Raises `UserError` if there is no such client.
    """

    def __init__(self, desk: Desk, client: int | str | None, leases: Leases) -> None:
        self.desk, self.ledger = desk, Ledger(desk.store, desk.config.annotators)
        self.items: dict[str, Item] = {}
        self.classes: tuple[str, ...] = ()
        self.taken = 0  # answers that came in through this page
        self._client, self._leases = client, leases
        self._state: object = None
        self._look_again = 0.0
        self._lock = threading.RLock()
        self.refresh()

    def refresh(self) -> None:
        """Take in new requests and answers."""
        with self._lock:
            if time.monotonic() >= self._look_again:
                self._read_requests()
                self._look_again = time.monotonic() + LOOK_AGAIN
            self.ledger.refresh()

    def next(self, person: Person, keep: Sequence[str] = ()) -> list[Item]:
        """Return the images that a page is to show, in order: those it has, as long as it may keep them, and more."""
        with self._lock, self._leases.changing() as leases:
            self.refresh()
            mine = [sample for sample in dict.fromkeys(keep) if self._is_free(sample, person, leases)][:AHEAD]
            for adjudicated in (False, True):
                for sample in self.items:
                    if len(mine) == AHEAD:
                        break
                    conflict = self.ledger.verdict(sample).outcome == "conflict"
                    if conflict == adjudicated and sample not in mine and self._is_free(sample, person, leases):
                        mine.append(sample)
            leases.hold(person.page, person.name, mine)
            return [self.items[sample] for sample in mine]

    def leave(self, page: str) -> None:
        """Let others have the images of a page that is closed."""
        with self._lock, self._leases.changing() as leases:
            leases.hold(page, "", ())

    def answer(
        self,
        person: Person,
        sample: str,
        status: Status,
        label: str | None = None,
        *,
        seconds: float | None = None,
        comment: str = "",
    ) -> Answer:
        """Save an answer, and return it once it would survive a power failure.

        Raises `Taken` if enough others have answered meanwhile; `UserError` if the image or the label is not asked for;
        `CannotWrite` if the disk is full: then nothing is saved.
        """
        with self._lock:
            self.refresh()
            item = self.items.get(sample)
            if item is None:
                raise UserError(f"The image {sample!r} is not asked for.")
            if status == "labelled" and label not in item.request.classes:
                raise UserError(f"{label!r} is no class. {did_you_mean(label, item.request.classes)}")

            def still_open() -> None:
                self.ledger.refresh()
                verdict = self.ledger.verdict(sample)
                if verdict.outcome in COUNTED and not self._has_answered(sample, person.name):
                    others = ", ".join(sorted(answer.annotator for answer in verdict.answers))
                    raise Taken(f"{others} answered this image meanwhile; your answer was not needed.")

            looked = seconds if seconds is not None and 0 <= seconds <= LOOKED else None
            return self._save(item, person, status, label, looked, comment, still_open)

    def undo(self, person: Person) -> Answer | None:
        """Withdraw a person's last answer and return it; None if there is none."""
        with self._lock:
            self.refresh()
            last = next(reversed(self.earlier(person.name)), None)
            if last is not None:
                self._save(self.items[last.sample], person, "open")
            return last

    def earlier(self, annotator: str) -> list[Answer]:
        """Return what a person says of the images that are asked for, the oldest answer first."""
        with self._lock:
            return [answer for answer in self.ledger.of(annotator) if answer.sample in self.items]

    def counts(self) -> dict[int, Counter[str]]:
        """Return for each client how many images have each outcome, ``open`` included."""
        with self._lock:
            found: dict[int, Counter[str]] = {}
            for sample, item in self.items.items():
                found.setdefault(item.request.client, Counter())[self.ledger.verdict(sample).outcome] += 1
            return found

    def left_for(self, annotator: str) -> int:
        """Return how many images a person could still answer, those that others hold included."""
        with self._lock:
            return sum(self._wanted(sample) > 0 and not self._has_answered(sample, annotator) for sample in self.items)

    def _read_requests(self) -> None:
        state = [
            (path, status.st_ino, status.st_mtime_ns)
            for path in sorted(self.desk.folder.glob(f"cycle_*/client_*/{MANIFEST}"))
            for status in (path.stat(),)
        ]
        if state != self._state:
            requests = sorted(self.desk.requests(), key=lambda request: request.cycle)
            chosen = of_client(requests, self._client)
            latest = {asked.sample: Item(asked, request) for request in chosen for asked in request.samples}
            self.items = {item.asked.sample: item for item in sorted(latest.values(), key=lambda item: item.order)}
            self.classes = requests[-1].classes if requests else ()
            self._state = state

    def _save(
        self,
        item: Item,
        person: Person,
        status: Status,
        label: str | None = None,
        seconds: float | None = None,
        comment: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> Answer:
        sample, request = item.asked.sample, item.request
        before = self.ledger.latest(sample, person.name)
        when = max(now(), before.time if before else "")  # a clock that was put back must not lose an answer
        answer = Answer(
            sample, status, label, person.name, when, "page", request.cycle, request.query, seconds, comment
        )
        self.taken += len(self.desk.store.add(request.client, [answer], check))
        self.ledger.refresh()
        return answer

    def _is_free(self, sample: str, person: Person, leases: Leases) -> bool:
        """Tell whether a page may show an image: the person has not answered it, and it waits for more than others."""
        if sample not in self.items or self._has_answered(sample, person.name):
            return False
        others = leases.holders(sample, besides=person.page)
        return person.name not in others and len(others) < self._wanted(sample)

    def _wanted(self, sample: str) -> int:
        """Return how many more people an image waits for."""
        verdict = self.ledger.verdict(sample)
        if verdict.outcome == "conflict":
            return 1
        return 0 if verdict.outcome in COUNTED else self.ledger.wanted - len(verdict.answers)

    def _has_answered(self, sample: str, annotator: str) -> bool:
        answer = self.ledger.latest(sample, annotator)
        return answer is not None and answer.status != "open"


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
