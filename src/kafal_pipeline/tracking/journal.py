"""The journal of one run: a file with one JSON object a line, written by one process and followed by another."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import writing

JOURNAL = "journal.jsonl"
"""Name of the journal in a run's tracking folder."""

TRACKING = "09_tracking"
"""Name of the folder of all journals, in the project's folder ``data``."""

COMPARISONS = "comparison"
"""Folder of the comparisons' journals, among those of a data set's strategies."""


class Entry(NamedTuple):
    """One event, and the offset in bytes at which the next one starts."""

    event: dict[str, Any]
    end: int


class Journal:
    """The writing end of a journal. Several threads may append; every event is whole on disk or not there at all.

    A last line that a crash left torn is cut off. Making one, `append` and `close` raise `CannotWrite` if the disk is
    full or must not be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(path.read_bytes().rfind(b"\n") + 1)

    def append(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        """Write one event of type `kind`, stamped with the time in ms; `durable` events survive a power failure."""
        event = {"type": kind, "time": time.time_ns() // 1_000_000, **fields}
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        with self._lock, writing(self.path):
            before, left = os.fstat(self._file.fileno()).st_size, memoryview(line)
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:  # a disk that is nearly full has taken the beginning of the line
                self._file.truncate(before)
                raise
            if durable:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write everything through to the disk and close the file."""
        with self._lock, writing(self.path):
            if not self._file.closed:
                try:
                    os.fsync(self._file.fileno())
                finally:
                    self._file.close()


def read(path: Path, offset: int = 0) -> list[Entry]:
    """Return the events from byte `offset` on; a last line without its end is not an event yet.

    Raises
    ------
    UserError
        Where a whole line is no JSON object: the file was edited or damaged.
    """
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    entries = []
    for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise UserError(f"{path}: the line that ends at byte {offset} is not an event. Remove that line.")
        entries.append(Entry(event, offset))
    return entries


def first(path: Path) -> dict[str, Any]:
    """Return the first event of a journal, which says what it is of; none, as an empty one, where there is none."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        event = json.loads(file.readline())
        return event if isinstance(event, dict) else {}
    return {}


def project_of(path: Path, start: Mapping[str, Any]) -> Path:
    """Return the folder of a journal's project, which may have moved since its first event, `start`, was written."""
    before = Path(start["project"])
    if (before / "data" / TRACKING).resolve() in path.resolve().parents:  # the folder `data` may be a link
        return before
    return next((folder.parents[1] for folder in path.parents if folder.name == TRACKING), before)
