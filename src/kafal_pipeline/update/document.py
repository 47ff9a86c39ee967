"""The tables of docs/updates.md, written from what the registered updates say of themselves.

``python -m kafal_pipeline.update.document docs/updates.md`` brings the page up to date; a test holds it to that.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from kafal_pipeline.files import write_text
from kafal_pipeline.registry import create
from kafal_pipeline.update.base import Update
from kafal_pipeline.update.losses import LOSSES, LabelledLoss
from kafal_pipeline.update.names import UPDATES

GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def updates_table() -> str:
    """Return the table of the registered updates."""
    rows = ["| `update` | what it does | options | reads | sends beside the model |", "|---|---|---|---|---|"]
    for name, entry in UPDATES.items():
        update: Update = create("update", name, {}, UPDATES)
        cells = [f"`{name}`", entry.summary, _options(update), _reads(update), _sends(update)]
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
        rows.append(f"| `{name}` | {_code(summary)} | {_listed(options)} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {"updates": updates_table, "losses": losses_table}


def renewed(page: str) -> str:
    """Return `page` with the text between ``<!-- generated: name -->`` and ``<!-- end -->`` written anew."""
    return GENERATED.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", page)


def _options(update: Update) -> str:
    values = {}
    for item in fields(cast(Any, update)):  # `create` has seen that it is a dataclass
        value = getattr(update, item.name)
        values[item.name] = value.name if isinstance(value, LabelledLoss) else value
    return _listed(values)


def _listed(options: dict[str, Any]) -> str:
    written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    return ", ".join(f"`{key}` {value}" for key, value in written.items()) or "-"


def _reads(update: Update) -> str:
    source = update.unlabelled_source()
    parts = [] if source == "none" else [f"unlabelled images ({source} pool)"]
    parts += ["the broadcast model"] if update.uses_teacher(1) else []
    parts += ["the client's last model"] if update.uses_previous() else []
    return ", ".join(parts) or "labelled images"


def _sends(update: Update) -> str:
    return "a control variate, both ways" if type(update).finish is not Update.finish else "-"


def _code(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_text(path, renewed(path.read_text(encoding="utf-8")))
