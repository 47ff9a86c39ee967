"""Label Studio: tasks and a labelling configuration for it, and its JSON export back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from kafal_pipeline.annotation.exchange.entries import Entry, as_time
from kafal_pipeline.annotation.requests import Asked, Request
from kafal_pipeline.common.errors import UserError

TASKS = "label_studio_tasks.json"
CONFIG = "label_studio_config.xml"

LABEL, STATUS = "label", "status"
"""Names of the two choices: what declines an image stands in a choice of its own, so that no class collides with it."""

DECLINING = {"unusable": "unusable", "unknown_class": "unknown class"}

HOTKEYS = 9

LONGEST = 86_400
"""Seconds that somebody may have looked at an image: with more the page stood open."""


def write_tasks(request: Request, samples: Sequence[Asked], files: Sequence[str], path: Path) -> None:
    """Write a task for each image, by rank; `files`: their paths below Label Studio's document root.

    No key of ``data`` may be ``label``: in Label Studio's exports that is its own.
    """
    tasks = [
        {
            "data": {
                "image": f"/data/local-files/?d={quote(file)}",
                "sample": asked.sample,
                "run": request.run,
                "cycle": request.cycle,
                "client": request.client,
                "query": request.query,
                "rank": asked.rank,
            }
        }
        for asked, file in zip(samples, files, strict=True)
    ]
    path.write_text(json.dumps(tasks, indent=1) + "\n", encoding="utf-8")


def write_config(classes: Sequence[str], path: Path) -> None:
    """Write the labelling configuration: one class, or one reason for none; keys 1 to 9 choose the first classes."""
    lines = [
        "<View>",
        '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>',
        f'  <Choices name="{LABEL}" toName="image" choice="single" showInline="true">',
        *(_choice(name, str(place) if place <= HOTKEYS else "") for place, name in enumerate(classes, start=1)),
        "  </Choices>",
        f'  <Choices name="{STATUS}" toName="image" choice="single" showInline="true">',
        *(_choice(text) for text in DECLINING.values()),
        "  </Choices>",
        "</View>",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _choice(value: str, hotkey: str = "") -> str:
    return f"    <Choice value={quoteattr(value)}{f' hotkey={quoteattr(hotkey)}' if hotkey else ''}/>"


def read(path: Path, text: str) -> list[Entry]:
    """Return what an export says: for each task what each person submitted or skipped; one empty entry if nobody did.

    Raises `UserError` if it is no JSON, or no export with annotations.
    """
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{path}: no whole JSON file ({' '.join(str(error).split())[:100]}). Was it cut off? Export it again; "
            "nothing was imported."
        ) from None
    except RecursionError:
        tasks = None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path}: JSON, but no list of tasks as Label Studio exports it. Export as JSON there.")
    if any("data" not in task or "annotations" not in task for task in tasks):
        minimal = any("annotation_id" in task or "lead_time" in task for task in tasks)
        kind = (
            "Label Studio's JSON_MIN, in which skipped images are missing" if minimal else "tasks without annotations"
        )
        raise UserError(f"{path}: {kind}. In Label Studio export as JSON, the first in its list.")
    return [entry for number, task in enumerate(tasks, start=1) for entry in _entries(number, task)]


def _entries(number: int, task: Mapping[str, Any]) -> Iterator[Entry]:
    data = task["data"] if isinstance(task["data"], dict) else {}
    sample, run, cycle, query = (_text(data.get(key)) for key in ("sample", "run", "cycle", "query"))
    of_task = Entry(f"task {_text(task.get('id')) or number}", sample, run=run, cycle=cycle, query=query)
    annotations = task["annotations"] if isinstance(task["annotations"], list) else []
    given = [annotation for annotation in annotations if isinstance(annotation, dict)]
    for annotation in given:
        labels, status = _said(annotation)
        yield replace(
            of_task,
            labels=labels,
            status=status,
            annotator=_annotator(annotation.get("completed_by")),
            time=as_time(_text(annotation.get("updated_at")) or _text(annotation.get("created_at"))),
            seconds=_seconds(annotation.get("lead_time")),
        )
    if not given:
        yield of_task


def _seconds(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 <= found < LONGEST else None


def _said(annotation: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return classes and status; what a skipped annotation holds is left over from before it was skipped."""
    if annotation.get("was_cancelled"):
        return (), "skipped"
    labels: list[str] = []
    statuses: list[str] = []
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        value = result.get("value") if isinstance(result, dict) else None
        choices = value.get("choices") if isinstance(value, dict) else None
        chosen = [_text(choice) for choice in choices] if isinstance(choices, list) else []
        if isinstance(result, dict) and result.get("from_name") == STATUS:
            statuses += chosen
        else:
            labels += chosen
    if not labels and not statuses:
        return (), "open"  # submitted without a choice
    if labels and statuses or len(statuses) > 1:
        return (*labels, *statuses), ""  # which the caller takes as said twice
    return tuple(labels), statuses[0] if statuses else ""


def _annotator(found: Any) -> str:
    """Return who annotated, by the number of the account, which all exports have; some have a name or address too."""
    number = _text(found.get("id") if isinstance(found, dict) else found)
    return f"label_studio_{number}" if number else ""


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
