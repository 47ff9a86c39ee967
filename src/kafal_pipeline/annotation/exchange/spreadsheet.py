"""CSV for spreadsheets: written so that Excel reads it, and read as Excel and others save it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from kafal_pipeline.annotation.exchange.entries import Entry, Problems
from kafal_pipeline.annotation.requests import Asked, Request
from kafal_pipeline.common.errors import UserError, did_you_mean

FILE = "to_label.csv"

COLUMNS = ("sample", "file", "cycle", "rank", "label", "annotator", "status", "comment")

NEEDED = ("sample", "cycle", "label", "annotator", "status")
"""Columns that must come back."""

LABEL_STUDIO = {"annotation_id", "lead_time"}
"""Columns that tell Label Studio's own CSV, in which skipped images are missing."""

DELIMITERS = (",", ";", "\t")


def write(request: Request, samples: Sequence[Asked], files: Sequence[str], path: Path) -> None:
    """Write a table with a row for each image; the byte order mark tells Excel that it is UTF-8."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for asked, name in zip(samples, files, strict=True):
            writer.writerow([asked.sample, name, request.cycle, asked.rank, "", "", "", ""])


def read(path: Path, text: str) -> list[Entry]:
    """Return what a table says, also of rows that are not filled in.

    Raises `UserError` if columns are missing, or if it ends in the middle of a row.
    """
    rows = _rows(path, text)
    _, header = next(rows)
    names = [cell.lower() for cell in header]
    if set(names) >= LABEL_STUDIO:
        raise UserError(
            f"{path}: is Label Studio's CSV, in which skipped images are missing. Export as JSON and import that."
        )
    for name in NEEDED:
        if names.count(name) != 1:
            found = "is missing" if name not in names else "is there twice"
            raise UserError(
                f"{path}: the column {name!r} {found}. Needed: {', '.join(NEEDED)}; found: {_shown(header)}."
            )
    entries, problems = [], Problems()
    cut_off = not text.endswith(("\n", "\r"))
    last = ""
    for place, cells in rows:
        if any(cells[len(names) :]):
            sentence = f"the row has {len(cells)} cells, where the header has {len(names)}: put commas between quotes."
            problems.add(place, sentence)
        # Excel leaves out separators after the last filled cell of some rows.
        last = place if len(cells) < len(names) else ""
        row = dict(zip(names, [*cells, *[""] * len(names)], strict=False))
        entries.append(
            Entry(
                place,
                row["sample"],
                (row["label"],) if row["label"] else (),
                row["status"],
                row["annotator"],
                comment=row.get("comment", ""),
                cycle=row["cycle"],
            )
        )
    if cut_off and last:
        problems.add(last, "the file ends in the middle of this row. Copy or export it again.")
    problems.check(path)
    return entries


def _rows(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows that hold something, trimmed, from the header on, each with its line for messages.

    Raises `UserError` if there is no header.
    """
    if text[:4].lower() == "sep=":  # Excel's own way to name the separator
        text = "\n" + text.partition("\n")[2]
    for delimiter in DELIMITERS:
        _, header = next(_split(path, text, delimiter, strict=False), ("", []))
        if "sample" in map(str.lower, header):
            yield from _split(path, text, delimiter, strict=True)
            return
    first = text.strip().partition("\n")[0]
    if first.strip("\"' ;\t").lower().startswith("sample,"):
        raise UserError(
            f"{path}: each row stands in one cell. Open to_label.csv in Excel with Data > From Text/CSV and the comma "
            "as separator, so that each column has its own."
        )
    hint = did_you_mean("sample", [cell.strip() for cell in first.split(",")][:20]) if "," in first else ""
    raise UserError(
        f"{path}: not recognised. Allowed: to_label.csv filled in, Label Studio's export as JSON, CVAT's as "
        f"'CVAT for images 1.1'. A table must begin with the names of its columns, 'sample' among them. {hint}".rstrip()
    )


def _split(path: Path, text: str, delimiter: str, strict: bool) -> Iterator[tuple[str, list[str]]]:
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict), 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield f"line {line}", cells
            line = reader.line_num + 1
    except csv.Error as error:
        why = "it ends between quotes" if "end of data" in str(error) else str(error)
        raise UserError(
            f"{path}: line {line}: no row of a table ({why}). Was the file cut off? Copy or export it again; nothing "
            "was imported."
        ) from None


def _shown(header: Sequence[str]) -> str:
    return ", ".join(header[:20])
