"""Entries of other tools' files, before they are checked; and all problems of a file in one message."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kafal_pipeline.annotation.answers import now
from kafal_pipeline.common.errors import UserError

SHOWN = 10
"""Problems of a file that its message names, and images that a summary names."""

PLACES = 3
"""Places in a file that are named where several have the same problem."""


@dataclass(frozen=True)
class Entry:
    """What a file says of one image; empty where it says nothing.

    `place`: where in the file, for messages. `sample`: its id; or, of CVAT, the image's name. `labels`: classes, of
    which there should be one at most. `time`: ISO 8601. `run`, `cycle`, `query`: those of the request it answers.
    """

    place: str
    sample: str
    labels: tuple[str, ...] = ()
    status: str = ""
    annotator: str = ""
    time: str = ""
    seconds: float | None = None
    comment: str = ""
    run: str = ""
    cycle: str = ""
    query: str = ""


class Problems:
    """What is wrong with a file; the same of several places is said once."""

    def __init__(self) -> None:
        self._places: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, place: str, sentence: str) -> None:
        """Add what is wrong at a place."""
        self._places[sentence].append(place)

    def check(self, path: Path) -> None:
        """Raise `UserError` with all of it, if there is anything."""
        if not self._places:
            return
        lines = [f"  {_listed(places)}: {sentence}" for sentence, places in self._places.items()]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"  and {len(lines) - SHOWN} more"]
        raise UserError(
            "\n".join(
                [
                    f"{path}: nothing was imported, since something is wrong in the file:",
                    *lines,
                    "Mend it and give the same command again.",
                ]
            )
        )


def _listed(places: Sequence[str]) -> str:
    shown = ", ".join(places[:PLACES])
    return f"{shown} and {len(places) - PLACES} more" if len(places) > PLACES else shown


def as_time(text: str) -> str:
    """Return a time as answers have it, in UTC and not in the future; empty if the text is none.

    >>> as_time("2020-11-25T12:00:00.123456+01:00"), as_time("2020-11-25 12:00"), as_time("yesterday")
    ('2020-11-25T11:00:00.123+00:00', '2020-11-25T12:00:00.000+00:00', '')
    """
    try:
        found = datetime.datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        return min(found.astimezone(datetime.UTC).isoformat(timespec="milliseconds"), now())
    except (ValueError, OverflowError):
        return ""
