"""The list of messages in docs/federation.md, made by `COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path

from kafal_pipeline.common.files import write_text
from kafal_pipeline.sites.listed import MESSAGES

COMMAND = "python tools/message_table.py docs/federation.md"
BEGIN, END = f"<!-- generated: {COMMAND} -->", "<!-- end -->"


def table() -> str:
    """Return a table for each message, in Markdown."""
    lines: list[str] = []
    for kind, message in MESSAGES.items():
        lines += [f"**`{kind}`** {message.what}", "", "| field | from | type | size | why |", "|---|---|---|---|---|"]
        for direction, sender in (("request", "server"), ("answer", "site")):
            for name, field in getattr(message, direction).items():
                lines.append(f"| `{name}` | {sender} | {field.type} | {field.size} | {field.why} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def updated(page: str) -> str:
    """Return the page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_text(path, updated(path.read_text(encoding="utf-8")))
