"""Table of how far the people are: a row for each client and cycle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from kafal_pipeline.annotation.requests import Request
from kafal_pipeline.annotation.verdicts import Outcome, Verdict

OUTCOMES: dict[Outcome, str] = {
    "labelled": "labelled",
    "skipped": "skipped",
    "unusable": "unusable",
    "unknown_class": "unknown class",
    "conflict": "conflicts",
    "open": "open",
}
"""The outcomes of the table, and its headings for them."""

TEST = "test images"


def table(requests: Sequence[Request], found: Mapping[str, Verdict]) -> str:
    """Return the table: a row for each client and cycle, test images apart, and totals if there are several rows.

    An image counts in the cycle that asked for it first, and in its latest state.
    """
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    seen: set[str] = set()
    for request in requests:
        for asked in request.asked(found):
            if asked.sample not in seen:
                seen.add(asked.sample)
                images = TEST if asked.part == "test" else "training"
                row = counts.setdefault((request.who, str(request.cycle), images), Counter())
                row[found[asked.sample].outcome if asked.sample in found else "open"] += 1
    rows = [_row(*key, row) for key, row in counts.items()]
    for images in ("training", TEST):
        of_these = [row for key, row in counts.items() if key[2] == images]
        if len(of_these) > 1:
            rows.append(_row("all", "", images, sum(of_these, Counter())))
    return _aligned([["client", "cycle", "images", "asked", *OUTCOMES.values()], *rows])


def _row(client: str, cycle: str, images: str, counts: Counter[str]) -> list[str]:
    return [client, cycle, images, f"{counts.total():,}", *(f"{counts[outcome]:,}" for outcome in OUTCOMES)]


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, 2) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in ruled
    ]
    return "\n".join(line.rstrip() for line in lines)
