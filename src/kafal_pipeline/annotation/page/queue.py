"""Hands out images to people, and takes their answers: no image twice at a time, no answer lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafal_pipeline.annotation.answers import Answer, Status, now
from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.page.board import Board, Item
from kafal_pipeline.annotation.page.leases import Leases
from kafal_pipeline.annotation.verdicts import COUNTED
from kafal_pipeline.common.errors import UserError, did_you_mean

AHEAD = 3
"""Images that a page holds: the one that is shown, and those that it loads meanwhile."""

LOOKED = 300.0
"""Seconds after which somebody has not been looking at one image all the time."""


class Taken(Exception):
    """Others have answered the image meanwhile; the message says who."""


@dataclass(frozen=True)
class Person:
    """Somebody at a page; a page is one tab of a browser."""

    name: str
    page: str


@dataclass(frozen=True)
class Progress:
    """How far a client is: images asked for, those of them that are open, and those about which people disagree.

    `enough`: whether the run can resume as far as this client is concerned.
    """

    who: str
    asked: int
    open: int
    conflicts: int
    enough: bool


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
        self.desk, self.board = desk, Board(desk, client)
        self.taken = 0  # answers that came in through this page
        self._ledger, self._leases = self.board.ledger, leases
        self._lock = threading.RLock()
        self._pages: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Take in new requests and answers."""
        with self._lock:
            self.board.refresh()

    def next(self, person: Person, keep: Sequence[str] = ()) -> list[Item]:
        """Return the images that a page is to show, in order: those it has, as long as it may keep them, and more."""
        with self._lock, self._leases.changing() as leases:
            self.refresh()
            mine = [sample for sample in dict.fromkeys(keep) if self._is_free(sample, person, leases)][:AHEAD]
            conflicts: list[str] = []
            for sample in self.board.waiting:
                if len(mine) == AHEAD:
                    break
                if sample not in mine and self._is_free(sample, person, leases):
                    (conflicts if self.is_conflict(sample) else mine).append(sample)
            mine += conflicts[: AHEAD - len(mine)]
            leases.hold(person.page, person.name, mine)
            self._pages.add(person.page)
            return [self.board.items[sample] for sample in mine]

    def leave(self, page: str) -> None:
        """Let others have the images of a page that is closed."""
        with self._lock, self._leases.changing() as leases:
            leases.hold(page, "", ())

    def close(self) -> None:
        """Let others have the images of all pages, which nobody serves any more."""
        with self._lock, self._leases.changing() as leases:
            for page in self._pages:
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
            item = self.board.known.get(sample)
            if item is None:
                raise UserError(f"The image {sample!r} is not asked for.")
            if status == "labelled" and label not in item.request.classes:
                raise UserError(f"{label!r} is no class. {did_you_mean(label, item.request.classes)}")

            def still_open() -> None:
                self.board.refresh()
                verdict = self._ledger.verdict(sample)
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
                self._save(self.board.known[last.sample], person, "open")
            return last

    def earlier(self, annotator: str) -> list[Answer]:
        """Return what a person says of the images that are asked for, the oldest answer first."""
        with self._lock:
            return [answer for answer in self._ledger.of(annotator) if answer.sample in self.board.known]

    def is_conflict(self, sample: str) -> bool:
        """Tell whether people disagree about an image."""
        return self._ledger.verdict(sample).outcome == "conflict"

    def progress(self) -> list[Progress]:
        """Return how far each client is."""
        with self._lock:
            return [self._progress(client, counts) for client, counts in sorted(self.board.counts.items())]

    def annotators(self) -> list[str]:
        """Return everybody who has answered, in order."""
        with self._lock:
            return self._ledger.annotators

    def left_for(self, annotator: str) -> int:
        """Return how many images a person could still answer, those that others hold included."""
        with self._lock:
            return sum(not self._has_answered(sample, annotator) for sample in self.board.waiting)

    def _progress(self, client: int, counts: Counter[str]) -> Progress:
        asked, left, conflicts = counts.total(), counts["open"], counts["conflict"]
        complete = self.desk.config.complete
        enough = left + conflicts == 0 or (complete < 1 and self.board.is_done(client, complete))
        return Progress(self.board.names[client], asked, left, conflicts, enough)

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
        before = self._ledger.latest(sample, person.name)
        when = max(now(), before.time if before else "")  # a clock that was put back must not lose an answer
        answer = Answer(
            sample, status, label, person.name, when, "page", request.cycle, request.query, seconds, comment
        )
        self.taken += len(self.desk.store.add(request.client, [answer], check))
        self.board.refresh()
        return answer

    def _is_free(self, sample: str, person: Person, leases: Leases) -> bool:
        """Tell whether a page may show an image: the person has not answered it, and it waits for more than others."""
        if sample not in self.board.items or self._has_answered(sample, person.name):
            return False
        # Who has just answered holds the image until the page asks for the next one.
        others = [name for name in leases.holders(sample, besides=person.page) if not self._has_answered(sample, name)]
        return person.name not in others and len(others) < self._wanted(sample)

    def _wanted(self, sample: str) -> int:
        """Return how many more people an image waits for."""
        verdict = self._ledger.verdict(sample)
        if verdict.outcome == "conflict":
            return 1
        return 0 if verdict.outcome in COUNTED else self._ledger.wanted - len(verdict.answers)

    def _has_answered(self, sample: str, annotator: str) -> bool:
        answer = self._ledger.latest(sample, annotator)
        return answer is not None and answer.status != "open"
