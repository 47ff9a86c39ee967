"""Writes the tables of docs/updates.md from the registered updates' own descriptions and behaviour.

`COMMAND` brings the page up to date; a test holds it to that.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

from kafal_pipeline.common.files import write_text
from kafal_pipeline.common.registry import create
from kafal_pipeline.update.base import Update
from kafal_pipeline.update.losses import LOSSES
from kafal_pipeline.update.names import UPDATES
from option_cells import listed, options_of
from update_cost import Cost, cost_of

COMMAND = "python tools/update_tables.py docs/updates.md"
GENERATED = re.compile(r"<!-- generated: (\w+)[^>]*-->\n.*?<!-- end -->", re.DOTALL)


def updates_table() -> str:
    """Return the table of the registered updates."""
    rows = [
        "| `update` | what it does | options | reads | a step | sent in a round | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in UPDATES.items():
        update: Update = create("update", name, {}, UPDATES)
        cost = cost_of(update)
        sent = f"{_several(cost.up, 'model')} up, {cost.down:.3g} down"
        kept = _several(cost.kept, "model") if cost.kept else "-"
        cells = [f"`{name}`", entry.summary, options_of(update), _reads(update), _step(cost), sent, kept]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def losses_table() -> str:
    """Return the table of the local losses."""
    rows = ["| `loss` | what it is | options |", "|---|---|---|"]
    for name, function in LOSSES.items():
        summary = str(inspect.getdoc(function)).partition("\n\n")[0].replace("\n", " ").rstrip(".")
        options = {
            item.name: item.default
            for item in inspect.signature(function).parameters.values()
            if item.kind is item.KEYWORD_ONLY
        }
        rows.append(f"| `{name}` | {_code(summary)} | {listed(options)} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {"updates": updates_table, "losses": losses_table}


def renewed(page: str) -> str:
    """Return `page` with the text from ``<!-- generated: name ... -->`` to ``<!-- end -->`` written again."""
    return GENERATED.sub(lambda match: _between(match[1], TABLES[match[1]]()), page)


def _between(name: str, table: str) -> str:
    return f"<!-- generated: {name}, by {COMMAND} -->\n{table}\n<!-- end -->"


def _reads(update: Update) -> str:
    source = update.unlabelled_source()
    parts = [] if source == "none" else [f"unlabelled images ({source} pool)"]
    parts += ["the broadcast model"] if update.uses_teacher(1) else []
    parts += ["the client's last model"] if update.uses_previous() else []
    return ", ".join(parts) or "labelled images"


def _step(cost: Cost) -> str:
    parts = [_several(cost.forwards, "forward"), _several(cost.backwards, "backward")]
    return ", ".join(parts + ["a term added to the gradient"] * cost.corrected)


def _several(count: float, what: str) -> str:
    return f"{count:.3g} {what}{'' if count == 1 else 's'}"


def _code(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_text(path, renewed(path.read_text(encoding="utf-8")))
