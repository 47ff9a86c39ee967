"""Matches what a file says with what a run has asked: by the images' ids, never by order or another tool's numbers."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from kafal_pipeline.annotation.answers import STATUSES, Status
from kafal_pipeline.annotation.exchange.entries import SHOWN, Entry
from kafal_pipeline.annotation.requests import Request, read_requests
from kafal_pipeline.annotation.verdicts import DECLINED
from kafal_pipeline.common.errors import UserError, did_you_mean

SAMPLE = re.compile(r"s[0-9a-f]{12}(-\d+)?")

CLASSES = 30
"""Classes that a message lists; of more it names the nearest."""


class Wrong(Exception):
    """Something that a file says cannot be: a sentence for its message."""


class Matcher:
    """Finds the image, the request and the class that an entry means.

    `elsewhere`: the folder of all requests, searched for those whose images are none of this run's.
    """

    def __init__(self, requests: Sequence[Request], elsewhere: Path | None) -> None:
        self._run = requests[0].run
        self._elsewhere = elsewhere
        self._by_sample: dict[str, list[Request]] = defaultdict(list)
        self._by_file: dict[str, str] = {}
        self._by_end: dict[str, set[str]] = defaultdict(set)
        for request in requests:
            for asked in request.all:
                self._by_sample[asked.sample].append(request)
                for place, end in enumerate(_ends(asked.file or "")):
                    self._by_end[end].add(asked.sample)
                    if place == 0:
                        self._by_file[end] = asked.sample
        self._classes = {request.classes: _Classes(request.classes) for request in requests}
        self._others: dict[str, str] | None = None
        self._searches = 0

    def find(self, entry: Entry) -> tuple[str, Request]:
        """Return an entry's image and the request that asked for it.

        Raises `Wrong` if no request of this run has, or if the entry says that it answers another one.
        """
        if entry.run and entry.run != self._run:
            raise Wrong(_of_another_run(entry.run, self._run))
        sample = self._sample(entry.sample)
        asking = self._by_sample.get(sample)
        if asking is None:
            raise Wrong(self._unknown(sample))
        if entry.query:
            matching = [request for request in asking if request.query == entry.query]
            if not matching:
                raise Wrong(
                    "it was exported for another query of this run, which has been made again since. Label what the "
                    f"run asks for now: the files in {asking[-1].name}."
                )
        elif entry.cycle:
            matching = [request for request in asking if str(request.cycle) == entry.cycle.removesuffix(".0")]
            if not matching:
                cycles = " and ".join(str(request.cycle) for request in asking)
                raise Wrong(f"{sample} was asked for in cycle {cycles}, not {entry.cycle!r}. Are rows mixed up?")
        else:
            matching = asking
        return sample, matching[-1]

    def said(self, entry: Entry, request: Request) -> tuple[Status | None, str | None]:
        """Return an entry's status and class; no status if it says nothing.

        Raises `Wrong` if they are unknown, or do not go together.
        """
        status = as_status(entry.status)
        if status and status not in STATUSES:
            raise Wrong(f"unknown status {entry.status!r}. {did_you_mean(status, STATUSES)}")
        if not entry.labels:
            if status == "labelled":
                raise Wrong("the status is labelled, but there is no label.")
            return (status or None), None  # type: ignore[return-value]
        (found,), classes = entry.labels, self._classes[request.classes]
        label = classes.find(found)
        if label is None and (declined := as_status(found)) in DECLINED and status in ("", declined):
            return declined, None  # type: ignore[return-value]  # written where labels are
        if label is None:
            raise Wrong(f"unknown class {found!r}. {classes.hint(found)}")
        if status not in ("", "labelled"):
            raise Wrong(f"the label {found!r} has the status {entry.status!r}. Empty one of them.")
        return "labelled", label

    def _sample(self, found: str) -> str:
        """Return the id in what a file has: an id, an image file named by one, or an original name.

        A name may begin in a folder above the data set's or in one below, if one image alone has it.
        """
        stem = PurePosixPath(found).stem
        if found in self._by_sample or stem in self._by_sample:
            return found if found in self._by_sample else stem
        ends = _ends(found)
        named = self._by_end.get(ends[0], set()) if ends else set()
        if len(named) == 1:
            return next(iter(named))
        return next((self._by_file[end] for end in ends if end in self._by_file), found)

    def _unknown(self, found: str) -> str:
        if len(self._by_end.get(found.strip("/"), ())) > 1:
            return f"{found!r} is the name of several images. Keep their folders in the names."
        sample = PurePosixPath(found).stem
        if (run := self._other_run(sample)) is not None:
            return _of_another_run(run, self._run)
        close = self._nearest(sample)
        if close or SAMPLE.fullmatch(sample):
            return f"unknown image {found!r}: this run has not asked for it.{f' Is it {close}?' if close else ''}"
        return f"{found[:100]!r} is no id of an image, such as {next(iter(self._by_sample))}. Was it changed?"

    def _nearest(self, sample: str) -> str | None:
        """Return the id that differs in a slip of the pen; looked for as often as a message has room for."""
        self._searches += 1
        close = difflib.get_close_matches(sample, self._by_sample, n=1, cutoff=0.85) if self._searches <= SHOWN else []
        return close[0] if close else None

    def _other_run(self, sample: str) -> str | None:
        """Return the run that has asked for an image, if one has."""
        if self._others is None:
            self._others = {}
            for folder in sorted(self._elsewhere.glob("*/*/seed_*")) if self._elsewhere else []:
                try:
                    asked = read_requests(folder)
                except (UserError, OSError):  # of another run: its own commands say so
                    continue
                self._others |= {item.sample: request.run for request in asked for item in request.all}
        return self._others.get(sample)


class _Classes:
    """Finds classes by their names: as they are, trimmed, and in other capitals, if only one class is meant."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._searches = 0
        ways: tuple[Callable[[str], str], ...] = (str, _tidy, lambda name: _tidy(name).casefold())
        self._ways = [(way, _unique(classes, way)) for way in ways]

    def find(self, name: str) -> str | None:
        """Return the class that a name means; None if none or several."""
        found = (known.get(way(name)) for way, known in self._ways)
        return next((label for label in found if label is not None), None)

    def hint(self, name: str) -> str:
        """Return what is allowed instead."""
        if len(self._classes) <= CLASSES:
            return did_you_mean(name, self._classes)
        self._searches += 1
        close = difflib.get_close_matches(name, self._classes, n=1) if self._searches <= SHOWN else []
        return f"Did you mean {close[0]!r}?" if close else "manifest.json names the classes."


def _unique(names: Iterable[str], way: Callable[[str], str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        found[way(name)] = None if way(name) in found else name
    return found


def _ends(file: str) -> list[str]:
    """Return a path and all that is left of it from the front on.

    >>> _ends("a/b/c")
    ['a/b/c', 'b/c', 'c']
    """
    parts = [part for part in unicodedata.normalize("NFC", file).split("/") if part]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _tidy(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def as_status(text: str) -> str:
    """Return a status as the program writes it.

    >>> as_status("Unknown class")
    'unknown_class'
    """
    return "_".join(text.lower().replace("-", " ").replace("_", " ").split())


def _of_another_run(found: str, run: str) -> str:
    return (
        f"it answers the run {found}, not {run}. Import it with that run's --params: a label counts for all runs of "
        "its data set."
    )
