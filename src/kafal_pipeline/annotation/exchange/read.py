"""Reads files of answers: recognises each by its content, and matches it with what the run has asked."""

from __future__ import annotations

import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from kafal_pipeline.annotation.answers import Answer
from kafal_pipeline.annotation.exchange import cvat, label_studio, spreadsheet
from kafal_pipeline.annotation.exchange.entries import Entry, Problems, as_time
from kafal_pipeline.annotation.exchange.matching import Matcher, Wrong
from kafal_pipeline.annotation.requests import Request
from kafal_pipeline.common.errors import UserError

Source = Literal["csv", "label_studio", "cvat"]

READERS: dict[Source, Callable[[Path, str], list[Entry]]] = {
    "csv": spreadsheet.read,
    "label_studio": label_studio.read,
    "cvat": cvat.read,
}

LARGEST = 200_000_000
"""Bytes of a file: a hundred times what an export of ten thousand answers has."""

LONGEST_NAME = 100
"""Characters of a person's name."""

WORKBOOK = "is an Excel workbook. In Excel save it as 'CSV UTF-8', and import that."

ARCHIVES = {
    b"PK\x03\x04": "is an archive (zip). Unpack it and import the file in it: annotations.xml of CVAT, or the JSON.",
    b"\xd0\xcf\x11\xe0": WORKBOOK,
}


@dataclass
class Answers:
    """What a file says, matched with the requests of a run.

    `by_client`: answers by client. `disputed`: what one person said twice and differently of an image, by id; this is
    no answer. `empty`: how many images are in the file without an answer.
    """

    source: Source
    by_client: dict[int, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    disputed: dict[str, str] = field(default_factory=dict)
    empty: int = 0


def read_file(path: Path) -> tuple[Source, list[Entry]]:
    """Return what kind of file it is, and what it says, not yet checked.

    Raises `UserError` if it is of no such kind, damaged, too large or not there.
    """
    if not path.is_file():
        what = "is a folder: name the file in it" if path.is_dir() else "there is no such file"
        raise UserError(f"annotation.file: {path}: {what}.")
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: has more than {LARGEST / 1e6:.0f} MB, as no file of answers has. Is it another file?")
    text = _as_text(path, path.read_bytes())
    source = recognise(text)
    return source, READERS[source](path, text)


def recognise(text: str) -> Source:
    """Return which kind of file a text looks like.

    >>> recognise("[{"), recognise("<?xml"), recognise("sample;label")
    ('label_studio', 'cvat', 'csv')
    """
    return {"[": "label_studio", "{": "label_studio", "<": "cvat"}.get(text.lstrip()[:1], "csv")  # type: ignore[return-value]


def _as_text(path: Path, content: bytes) -> str:
    for beginning, what in ARCHIVES.items():
        if content.startswith(beginning):
            raise UserError(f"{path}: {WORKBOOK if b'xl/workbook.xml' in content else what}")
    # Excel's "Unicode text" is UTF-16, its plain CSV the code page of Western Windows.
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ["utf-16"] if is_utf16 else ["utf-8-sig", "cp1252"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not text.strip():
            raise UserError(f"{path}: is empty.")
        if "\0" not in text:
            return text
    raise UserError(f"{path}: is no text, or cut off. Save the table as 'CSV UTF-8', or export it again.")


def answers_in(path: Path, requests: Sequence[Request], annotator: str, elsewhere: Path | None = None) -> Answers:
    """Return the answers in a file, matched by the images' ids with what a run has asked.

    `annotator`: who answered where the file does not say. `elsewhere`: the folder of all requests, which is searched
    for those whose images are none of this run's.

    Raises `UserError` with all problems of the file: another run, cycle or query; unknown images, classes or statuses;
    rows about one image, of the same person, that disagree.
    """
    source, entries = read_file(path)
    matcher, problems, answers = Matcher(requests, elsewhere), Problems(), Answers(source)
    saved = _time_of(path)
    latest: dict[tuple[str, str], tuple[Answer, Request, str]] = {}
    for entry in entries:
        try:
            sample, request = matcher.find(entry)
            if len(entry.labels) > 1:
                answers.disputed[sample] = " and ".join(entry.labels)
                continue
            status, label = matcher.said(entry, request)
            if status is None:
                answers.empty += 1
                continue
            who = _name(entry.annotator or annotator)
        except Wrong as wrong:
            problems.add(entry.place, str(wrong))
            continue
        answer = Answer(
            *(sample, status, label, who, entry.time or saved, source, request.cycle, request.query),
            *(entry.seconds, entry.comment),
        )
        before, _, place = latest.get((sample, who), (answer, request, entry.place))
        if before.time == answer.time and (before.status, before.label) != (answer.status, answer.label):
            problems.add(f"{place} and {entry.place}", f"{who} says two things of {sample}. Leave one of them.")
        if before.time <= answer.time:
            latest[sample, who] = (answer, request, entry.place)
    problems.check(path)
    for answer, request, _ in latest.values():
        answers.by_client[request.client].append(answer)
    return answers


def _time_of(path: Path) -> str:
    """Return when a file was last saved: its answers are no younger, also if it is imported a second time."""
    seconds = min(max(path.stat().st_mtime, 0), time.time())
    return as_time(datetime.fromtimestamp(seconds, UTC).isoformat())


def _name(who: str) -> str:
    if len(who) > LONGEST_NAME or not who.isprintable():
        raise Wrong(f"the annotator {who[:LONGEST_NAME]!r} is no name: at most {LONGEST_NAME} characters, on one line.")
    return unicodedata.normalize("NFC", who)
