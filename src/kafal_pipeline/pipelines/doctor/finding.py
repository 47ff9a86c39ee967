"""The result of a check."""

from dataclasses import dataclass
from typing import Literal

OK: Literal["ok"] = "ok"
WARNING: Literal["warning"] = "warning"
FAILURE: Literal["failure"] = "failure"

LARGE = 1e8
"""Bytes from which a data set is worth a word on its size."""


def in_bytes(count: float) -> str:
    """Return a number of bytes as one would say it.

    >>> in_bytes(25e6), in_bytes(3e9)
    ('25 MB', '3.0 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= LARGE else f"{count / 1e6:.0f} MB"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    `check`: what was looked at. `status`: ``failure`` where the configured run would not do what it is asked for,
    ``warning`` where it would do it worse than it could or where something could not be looked at. `found`: what is
    there. `advice`: what to do about it; empty where there is nothing to do.
    """

    check: str
    status: Literal["ok", "warning", "failure"]
    found: str
    advice: str = ""

    def __str__(self) -> str:
        """Return ``<check>: <found>. <advice>``."""
        return f"{self.check}: {self.found}" + (f". {self.advice}" if self.advice else "")
