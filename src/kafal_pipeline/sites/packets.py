"""Packets: what a message between the server and a site holds, whatever carries it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kafal_pipeline.models.state import Arrays

Scalar = str | int | float
Value = Scalar | list[str] | list[int] | list[float]


@dataclass(frozen=True)
class Packet:
    """Numbers and texts by name, and groups of arrays by name."""

    values: Mapping[str, Value] = field(default_factory=dict)
    arrays: Mapping[str, Arrays] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """In the place of a site's answer: why there is none, as a part of a sentence."""

    why: str


class Carrier(Protocol):
    """Carries packets between the server and sites, which it knows by name."""

    def sites(self) -> list[str]:
        """Return the names of the sites that are there, sorted."""

    def ask(self, kind: str, requests: Mapping[str, Packet], place: str) -> Iterator[tuple[str, Packet | Missing]]:
        """Send each site its request, and yield names and answers as they come, one for each site.

        `place` says for logs what it is about, such as ``cycle 1, round 3``.
        """
