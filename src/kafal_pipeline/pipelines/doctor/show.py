"""Findings on the screen: a table on a terminal, plain lines elsewhere."""

from collections.abc import Iterable, Iterator

import click
from rich import get_console
from rich.table import Table
from rich.text import Text

from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding

COLOURS = {OK: "green", WARNING: "yellow", FAILURE: "bold red"}


def showing(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Pass findings on and show them: lines at once, a table when all are there."""
    if not get_console().is_terminal:
        for finding in findings:
            click.echo(line(finding))
            yield finding
        return
    seen: list[Finding] = []
    with get_console().status("Looking ..."):
        for finding in findings:
            seen.append(finding)
            yield finding
    get_console().print(table(seen))


def line(finding: Finding) -> str:
    """Return a finding as a line.

    >>> line(Finding("disk", "ok", "12.0 GB free"))
    'ok       disk: 12.0 GB free'
    """
    return f"{finding.status:8} {finding}"


def table(findings: Iterable[Finding]) -> Table:
    """Return findings as a table."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "check", "found", "what to do"):
        shown.add_column(heading, overflow="fold")
    for finding in findings:
        # As text: names of folders may have brackets in them, which rich would take for its markup.
        columns = (finding.check, finding.found, finding.advice)
        shown.add_row(Text(finding.status, style=COLOURS[finding.status]), *map(Text, columns))
    return shown
