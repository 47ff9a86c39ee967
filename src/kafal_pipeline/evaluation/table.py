"""Prints the learning curve as a table of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kafal_pipeline.evaluation.curve import people_columns

if TYPE_CHECKING:
    import pandas as pd

PERCENT_COLUMNS = {
    "share": "labelled_fraction",
    "accuracy": "accuracy",
    "balanced accuracy": "balanced_accuracy",
    "AULC": "aulc",
}


PEOPLE_COLUMNS = {
    "labelled": ("annotation_labelled", ",d"),
    "skipped": ("annotation_skipped", ",d"),
    "unusable": ("annotation_unusable", ",d"),
    "unknown class": ("annotation_unknown_class", ",d"),
    "conflicts": ("annotation_conflicts", ",d"),
    "kappa": ("annotation_kappa", ".2f"),
    "s/label": ("annotation_seconds_per_label", ".1f"),
    "hours": ("annotation_hours", ".2f"),
}
"""Columns of what people did, up to each cycle: the names, and how their numbers are written."""


def format_table(curve: pd.DataFrame, processor: str | None = None) -> str:
    """Return the learning curve as a ruled table of plain text, one line a cycle, and one about skipped clients if any.

    Where people annotate, a second table says what they did up to each cycle.
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
    made_on = ["", f"Processor: {processor}"] if processor else []
    return "\n".join([*_ruled(header, lines), *_people(curve), *_skipped(curve), *made_on])


def _ruled(header: list[str], lines: list[list[str]]) -> list[str]:
    """Return the lines of a ruled table."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, rule, *lines)
    ]


def _people(curve: pd.DataFrame) -> list[str]:
    """Return the table of what people did, where they annotate."""
    if not people_columns(curve):
        return []
    rows = curve[["cycle", *(name for name, _ in PEOPLE_COLUMNS.values())]].itertuples(index=False)
    forms = ["d", *(form for _, form in PEOPLE_COLUMNS.values())]
    lines = [
        ["-" if value != value else format(value, form) for value, form in zip(row, forms, strict=True)]  # noqa: PLR0124
        for row in rows
    ]
    return ["", *_ruled(["cycle", *PEOPLE_COLUMNS], lines)]


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
