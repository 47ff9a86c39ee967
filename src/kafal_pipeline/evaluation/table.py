"""Prints the learning curve as a table of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PERCENT_COLUMNS = {
    "share": "labelled_fraction",
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "AULC": "aulc",
}


def format_table(curve: pd.DataFrame, processor: str | None = None) -> str:
    """Return the learning curve as a ruled table of plain text, one line a cycle, and one about skipped clients if any.

    A last line names the `processor`, where it is known: another kind gives other last bits, hence other numbers.

    >>> import pandas as pd
    >>> measures = {"labelled_fraction": 0.1, "accuracy": 0.65, "balanced_accuracy": 0.6, "aulc": 0.65}
    >>> print(format_table(pd.DataFrame([{"cycle": 0, "labels": 143, **measures}])))
    cycle  labels    share  accuracy  balanced accuracy     AULC
    -----  ------  -------  --------  -----------------  -------
        0     143  10.00 %   65.00 %            60.00 %  65.00 %
    """
    header = ["cycle", "labels", *PERCENT_COLUMNS]
    lines = [
        [str(int(row["cycle"])), f"{int(row['labels']):,}", *(_percent(row[key]) for key in PERCENT_COLUMNS.values())]
        for _, row in curve.iterrows()
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    table = [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, rule, *lines)
    ]
    made_on = ["", f"Processor: {processor}"] if processor else []
    return "\n".join([*table, *_skipped(curve), *made_on])


def _skipped(curve: pd.DataFrame) -> list[str]:
    """Return the line about clients that were left out of rounds, if any were."""
    counts = curve.get("skipped_client_rounds")
    if counts is None or not counts.any():
        return []
    cycles = ", ".join(str(cycle) for cycle in curve["cycle"][counts > 0])
    return [
        "",
        f"Clients left out of rounds because their training had failed: {counts.sum():,} times, in cycles {cycles} "
        "(the column `failed` of rounds.parquet says which).",
    ]


def _percent(fraction: float) -> str:
    return "-" if fraction != fraction else f"{100 * fraction:.2f} %"  # noqa: PLR0124 - only NaN differs from itself
