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
    """What the tracker has.

    Attributes
    ----------
    store
        The tracker's address, without credentials.
    run_id
        The MLflow run, None before it is made.
    page
        The address, within a server's, of the page that compares the experiment's runs.
    journal, system
        Bytes delivered of the journal and of the system metrics.
    pending
        Where in the journal the files begin that the tracker has not taken yet, though it took what follows them.
    complete
        Whether the run's status is set and nothing is to come.
    problem
        Why the last attempt failed, None when it did not.
    skipped
        What the tracker can never be given, such as a file that is gone.
    """

    store: str | None = None
    run_id: str | None = None
    page: str | None = None
    journal: int = 0
    system: int = 0
    pending: list[int] = field(default_factory=list)
    complete: bool = False
    problem: str | None = None
    skipped: list[str] = field(default_factory=list)

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
