"""Notes that a run waits for labels: from the command that found some missing until the next training begins."""

from __future__ import annotations

import json
import uuid
from typing import Any

from kafal_pipeline.common.files import write_json
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.runs.provenance import configuration_digest


def note(run: Layout, *, first_pool: bool) -> None:
    """Note that the run waits with these parameters.

    A run that waits for its `first_pool` has no provenance yet, or that of an earlier one: the name of this doing of it
    is made here, and stays the same however often it waits.
    """
    name = (execution(run) or uuid.uuid4().hex) if first_pool else ""
    write_json(run.waiting, {"configuration": configuration_digest(run.config), "execution": name})


def over(run: Layout) -> None:
    """Note that the run waits no more."""
    run.waiting.unlink(missing_ok=True)


def waits(run: Layout) -> bool:
    """Tell whether the run, with these parameters, waits for labels."""
    return bool(_noted(run))


def execution(run: Layout) -> str:
    """Return the name of a doing of the run that has waited for its first pool, and did nothing else; empty if none."""
    return str(_noted(run).get("execution", ""))


def _noted(run: Layout) -> dict[str, Any]:
    """Return what is noted; nothing where that is not legible, or of other parameters."""
    try:
        found = json.loads(run.waiting.read_text(encoding="utf-8"))
        return found if found["configuration"] == configuration_digest(run.config) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}
