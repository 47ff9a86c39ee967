"""Leases: which page shows which images, so that two people do not get the same one."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.common.locks import alone

SECONDS = 120.0
"""Time for which a page may keep images without asking again; open pages ask every 40 seconds."""


@dataclass(frozen=True)
class Held:
    """What a page holds, until a time in seconds since 1970."""

    annotator: str
    until: float
    samples: tuple[str, ...]


class Leases:
    """What each page holds, in a file, so that several processes on one run know of each other's pages.

    Nothing depends on the file: without it, as on a full disk, processes know their own pages alone, and an answer too
    many is still refused by the store. `clock` returns seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._held: dict[str, Held] = {}

    @contextlib.contextmanager
    def changing(self) -> Iterator[Leases]:
        """Yield the leases while nobody else can change them."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(alone(self._path.with_name(f"{self._path.name}.lock")))
            except (CannotWrite, OSError):
                yield self
                return
            self._read()
            before = dict(self._held)
            yield self
            if self._held != before:
                self._write()

    def hold(self, page: str, annotator: str, samples: Sequence[str]) -> None:
        """Let a page hold these images and no others from now on."""
        self._held.pop(page, None)
        if samples:
            self._held[page] = Held(annotator, self._clock() + SECONDS, tuple(samples))

    def holders(self, sample: str, besides: str) -> list[str]:
        """Return who holds an image at other pages than the one called `besides`."""
        now = self._clock()
        return [
            held.annotator
            for page, held in self._held.items()
            if page != besides and sample in held.samples and held.until > now
        ]

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            held = {page: Held(of["annotator"], of["until"], tuple(of["samples"])) for page, of in found.items()}
            self._held = {page: of for page, of in held.items() if of.until > self._clock()}

    def _write(self) -> None:
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({page: asdict(of) for page, of in self._held.items()}), encoding="utf-8")
            temporary.replace(self._path)
