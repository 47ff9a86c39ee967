"""Answers of people about images, and the store that keeps them: one file a client, to which lines are added."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import sync_folder, writing
from kafal_pipeline.common.locks import alone

Status = Literal["labelled", "skipped", "unusable", "unknown_class", "open"]
"""Kinds of answers about an image: its class; nothing now; that it shows nothing; that its class is in no list; or that
an earlier answer is withdrawn (``open``)."""

STATUSES: tuple[Status, ...] = ("labelled", "skipped", "unusable", "unknown_class", "open")

SUFFIX = ".jsonl"

END = 256
"""Bytes before a file's new lines by which it is known again: a file that was edited is read from its beginning."""


@dataclass(frozen=True)
class Answer:
    """What one person said of one image.

    `sample`: the image's opaque id. `label`: the name of its class, None unless it is labelled. `time`: ISO 8601, UTC.
    `source`: the way it came (``page``, ``csv``, ``label_studio``, ``cvat``). `cycle`, `query`: those of the request
    that it answers. `seconds`: how long the person looked at the image, where that is known.
    """

    sample: str
    status: Status
    label: str | None
    annotator: str
    time: str
    source: str
    cycle: int
    query: str
    seconds: float | None = None
    comment: str = ""

    def says_the_same(self, other: Answer) -> bool:
        """Tell whether it adds nothing to an earlier answer of the same person."""
        return (self.status, self.label, self.comment) == (other.status, other.label, other.comment)


def now() -> str:
    """Return the time as answers have it: ISO 8601, UTC, milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@dataclass
class _File:
    """What has been read of a file of answers.

    `state`: its number, size and time of change when it was read. `size`, `end`: length and end of its whole lines.
    """

    state: tuple[int, ...] = ()
    size: int = 0
    end: bytes = b""
    answers: list[Answer] = field(default_factory=list)
    latest: dict[tuple[str, str], Answer] = field(default_factory=dict)


class AnswerStore:
    """The answers for a data set, one file for each client in a folder; lines are added and never changed.

    Several processes may use it at once. What has been read of a file is kept: the next time its new lines are enough.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, _File] = {}
        self._reading = threading.Lock()

    def path(self, client: int) -> Path:
        """Return the file of a client's answers."""
        return self.folder / f"client_{client:03d}{SUFFIX}"

    def add(self, client: int, answers: Iterable[Answer], check: Callable[[], None] = lambda: None) -> list[Answer]:
        """Add what is new in `answers`, and return that once it would survive a power failure.

        An answer is not new if the same person's latest one about the image says the same, or is younger: the same file
        may be imported twice. `check` is called when nobody else can add answers of the client any more; if it raises,
        nothing is added. Raises `CannotWrite` if the disk is full or must not be written; then nothing is added.
        """
        path = self.path(client)
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(path.with_name(f".{path.name}.lock")):
                check()
                file = self._read(path)
                latest: dict[tuple[str, str], Answer] = {}
                new: list[Answer] = []
                for answer in answers:
                    key = (answer.sample, answer.annotator)
                    before = latest.get(key) or file.latest.get(key)
                    if before is None or (before.time <= answer.time and not answer.says_the_same(before)):
                        latest[key] = answer
                        new.append(answer)
                if new:
                    _append(path, file.size, b"".join(json.dumps(asdict(answer)).encode() + b"\n" for answer in new))
                return new

    def clients(self) -> list[int]:
        """Return the clients that have answers."""
        return [int(path.stem.removeprefix("client_")) for path in sorted(self.folder.glob(f"client_*{SUFFIX}"))]

    def read(self, client: int) -> list[Answer]:
        """Return a client's answers in the order in which they came."""
        return list(self._read(self.path(client)).answers)

    def read_all(self) -> list[Answer]:
        """Return the answers of all clients."""
        return [answer for client in self.clients() for answer in self.read(client)]

    def _read(self, path: Path) -> _File:
        """Return what a file holds: what was read of it before and, of what it has grown by, the whole lines."""
        try:
            with self._reading, path.open("rb") as file:
                status = os.fstat(file.fileno())
                state = (status.st_ino, status.st_size, status.st_mtime_ns)
                known = self._files.get(path, _File())
                if known.state == state:
                    return known
                file.seek(max(0, known.size - len(known.end)))
                grown = known.state[:1] == state[:1] and status.st_size > known.state[1]
                if not grown or file.read(len(known.end)) != known.end:  # it was edited
                    known = _File()
                    file.seek(0)
                lines = file.read()
                lines = lines[: lines.rfind(b"\n") + 1]
                answers = list(_parsed(path, lines, len(known.answers)))
                known.answers.extend(answers)
                latest_of(answers, known.latest)
                known.state, known.size, known.end = state, known.size + len(lines), (known.end + lines)[-END:]
                self._files[path] = known
                return known
        except FileNotFoundError:
            self._files.pop(path, None)
            return _File()


def latest_of(
    answers: Iterable[Answer], latest: dict[tuple[str, str], Answer] | None = None
) -> dict[tuple[str, str], Answer]:
    """Return the latest answer of each person about each image, by image and person; given `latest`, add to it."""
    latest = {} if latest is None else latest
    for answer in answers:
        key = (answer.sample, answer.annotator)
        if key not in latest or latest[key].time <= answer.time:
            latest[key] = answer
    return latest


def _append(path: Path, size: int, content: bytes) -> None:
    """Add whole lines to a file, or nothing. `size`: where its whole lines end."""
    new = not path.exists()
    with path.open("ab", buffering=0) as file:
        file.truncate(size)  # what a crash left of a line is cut off: nobody was told that it is on disk
        left = memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:  # a disk that is nearly full has taken the beginning
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise
    if new:
        sync_folder(path.parent)


def _parsed(path: Path, lines: bytes, before: int) -> Iterator[Answer]:
    """Yield the answers in lines of a file, of which `before` lines come earlier."""
    names = {field.name for field in fields(Answer)}
    for number, line in enumerate(lines.splitlines(), start=before + 1):
        try:
            values = json.loads(line)
            answer = Answer(**{key: value for key, value in values.items() if key in names})
            if answer.status not in STATUSES or (answer.label is None) == (answer.status == "labelled"):
                raise ValueError(f"status {answer.status!r} with label {answer.label!r}")
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: line {number} is no answer ({error}). It was edited or damaged: take the line out; the image "
                "is asked for again."
            ) from None
        yield answer
