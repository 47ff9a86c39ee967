"""Answers of people about images, and the store that keeps them: one file a client, to which lines are added."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import sync_folder, writing
from kafal_pipeline.common.locks import alone

Status = Literal["labelled", "skipped", "unusable", "unknown_class", "open"]
"""What somebody said of an image: its class; nothing now; that it shows nothing; that its class is in no list; or that
an earlier answer is withdrawn (``open``)."""

STATUSES: tuple[Status, ...] = ("labelled", "skipped", "unusable", "unknown_class", "open")

SUFFIX = ".jsonl"


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


class AnswerStore:
    """The answers for a data set, one file for each client in a folder; lines are added and never changed.

    Several processes may use it at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, client: int) -> Path:
        """Return the file of a client's answers."""
        return self.folder / f"client_{client:03d}{SUFFIX}"

    def add(self, client: int, answers: Iterable[Answer]) -> list[Answer]:
        """Add what is new in `answers`, and return that once it would survive a power failure.

        An answer is not new if the same person's latest one about the image says the same, or is younger: the same file
        may be imported twice. Raises `CannotWrite` if the disk is full or must not be written; then nothing is added.
        """
        path = self.path(client)
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(path.with_name(f".{path.name}.lock")):
                latest = latest_of(self.read(client))
                new: list[Answer] = []
                for answer in answers:
                    before = latest.get((answer.sample, answer.annotator))
                    if before is None or (before.time <= answer.time and not answer.says_the_same(before)):
                        latest[answer.sample, answer.annotator] = answer
                        new.append(answer)
                if new:
                    _append(path, b"".join(json.dumps(asdict(answer)).encode() + b"\n" for answer in new))
                return new

    def read(self, client: int) -> list[Answer]:
        """Return a client's answers in the order in which they came."""
        return list(_read(self.path(client)))

    def read_all(self) -> list[Answer]:
        """Return the answers of all clients."""
        return [answer for path in sorted(self.folder.glob(f"client_*{SUFFIX}")) for answer in _read(path)]


def latest_of(answers: Iterable[Answer]) -> dict[tuple[str, str], Answer]:
    """Return the latest answer of each person about each image, by image and person."""
    latest: dict[tuple[str, str], Answer] = {}
    for answer in answers:
        key = (answer.sample, answer.annotator)
        if key not in latest or latest[key].time <= answer.time:
            latest[key] = answer
    return latest


def _append(path: Path, content: bytes) -> None:
    """Add whole lines to a file, or nothing."""
    new = not path.exists()
    with path.open("ab", buffering=0) as file:
        # What a crash left of a line is cut off: nobody was told that it is on disk.
        size = path.read_bytes().rfind(b"\n") + 1
        file.truncate(size)
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


def _read(path: Path) -> Iterator[Answer]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    names = {field.name for field in fields(Answer)}
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
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
