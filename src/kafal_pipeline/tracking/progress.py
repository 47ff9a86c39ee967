"""The note of how far a journal is delivered: the helper writes it; the run and a later delivery read it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json, write_json
from kafal_pipeline.tracking.journal import JOURNAL

PROGRESS = "delivered.json"
"""Name of the file, next to the journal."""


@dataclass
class Progress:
    """What the tracker has."""

    store: str | None = None  # its address, without credentials
    run_id: str | None = None
    page: str | None = None  # the address, within a server's, of the page that compares the experiment's runs
    journal: int = 0  # bytes delivered of the journal,
    system: int = 0  # and of the system metrics
    pending: list[int] = field(default_factory=list)  # offsets of files not taken yet, though what follows them was
    complete: bool = False  # the run's status is set and nothing is to come
    problem: str | None = None  # why the last attempt failed
    skipped: list[str] = field(default_factory=list)  # what can never be delivered, such as a file that is gone

    @classmethod
    def load(cls, folder: Path) -> Progress:
        """Return the progress of the journal in `folder`; of one never delivered, a fresh one."""
        path = folder / PROGRESS
        if not path.exists():
            return cls()
        advice = "Remove it: the journal is then delivered again, to the same run in MLflow."
        try:
            return cls(**read_json(path, advice))
        except TypeError as error:
            raise UserError(f"{path}: damaged ({error}). {advice}") from None

    @classmethod
    def whole(cls, journal: Path) -> bool:
        """Return whether all of a journal is delivered."""
        found = cls.load(journal.parent)
        return found.complete and not found.pending and found.journal == journal.stat().st_size

    @classmethod
    def newest_page(cls, journals: Path) -> str | None:
        """Return the page of the newest of a run's journals, whose folders are named by their time, if it is known."""
        folder = max((path.parent for path in journals.glob(f"*/{JOURNAL}")), default=None)
        with contextlib.suppress(UserError):  # the delivery's matter, which says so
            return cls.load(folder).page if folder else None
        return None

    def save(self, folder: Path) -> None:
        """Write the progress into `folder`."""
        write_json(folder / PROGRESS, asdict(self))
