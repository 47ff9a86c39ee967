"""Records the parameters, data and code that made a run's results: whether they can be used again without running.

``provenance.json`` is written when the first training begins and completed when the run has ended. In between, and
after a crash, it says that the run is not finished, whatever files of an earlier one lie there.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import file_digest, read_json, write_json
from kafal_pipeline.common.machine import arithmetic
from kafal_pipeline.common.versions import versions
from kafal_pipeline.config import AnnotationConfig, Config
from kafal_pipeline.runs.code_digest import sources_digest
from kafal_pipeline.runs.layout import Layout, cycle_name

THEN, UNSET = ", then ", "not set"
"""Texts between two machines that a run was made on, and for a variable that is not set."""


class Absent(UserError):
    """The images or the split of a run are not there."""


Fingerprint = Mapping[str, str]
State = Literal["finished", "changed", "interrupted", "absent"]
"""Of results: ``changed`` are those that were finished, and are no longer what the run saved."""


@dataclass(frozen=True)
class Provenance:
    """What is known of the results in a folder: `finished` and `error` are None where they do not apply.

    `execution` is an arbitrary name of this one doing of the run, the same before and after an interruption.
    `files` has the digest of each data set that its cycles have saved; `machine`, what `machine.arithmetic` found where
    it was begun, and where it went on if that was elsewhere.
    """

    fingerprint: Fingerprint
    finished: str | None
    error: str | None
    versions: Mapping[str, str]
    execution: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)


def deciding(config: Config) -> dict[str, Any]:
    """Return the parameters that results depend on."""
    asking = config.annotation.source == "people"
    values = config.model_dump(
        mode="json",
        exclude={
            "tracking": True,
            "restart": True,
            "training": {"processes", "device", "checkpoint_every"},
            # What is enough for a cycle may be decided while a run waits. An oracle is asked in one way only.
            "annotation": set(AnnotationConfig.model_fields) - {"source", "refill"} if asking else True,
        },
    )
    return json.loads(json.dumps(values))


def configuration_digest(config: Config) -> str:
    """Return the digest of the parameters that results depend on."""
    return _digest(json.dumps(deciding(config), sort_keys=True).encode())


def fingerprint(run: Layout) -> dict[str, str]:
    """Return what decides about the results of a run: digests of configuration, images, split, code and first weights.

    Raises
    ------
    Absent
        If the split, the images or the file of pretrained weights are not there.
    """
    config, store = run.config, run.data / "meta.json"
    for path in (store, run.splits):
        if not path.is_file():
            raise Absent(f"{path}: there is no such file. Have it made: kedro run --pipeline fal.")
    weights = {}
    if config.model.pretrained is not None:
        file = Path(config.model.pretrained)
        if not file.is_file():
            raise Absent(f"model.pretrained: there is no file {str(file.absolute())!r}.")
        weights = {"weights": file_digest(file)}
    meta = read_json(store, "Remove its folder and have it made again: kedro run --pipeline data.")
    images = {key: meta[key] for key in ("arrays", "classes", "mean", "std")}
    images["arrays"] = {key: array for key, array in images["arrays"].items() if key != "train_files"}  # only names
    return {
        "configuration": configuration_digest(config),
        "images": _digest(json.dumps(images, sort_keys=True).encode()),
        "split": file_digest(run.splits),
        "sources": sources_digest(config),
        **weights,
    }


def begin(run: Layout, execution: str = "") -> None:
    """Note what makes the results of the run that begins now, and the name of this doing of it: a new one if empty."""
    made = Provenance(fingerprint(run), None, None, versions(), execution or uuid.uuid4().hex, machine=arithmetic())
    _write(run, made)


def forget(run: Layout) -> None:
    """Note nothing any more: the results are about to be replaced."""
    run.provenance.unlink(missing_ok=True)


def reopen(run: Layout) -> None:
    """Note that the run resumes, so that it is not finished."""
    found = read(run)
    if found is not None and (found.finished or found.error):
        _write(run, replace(found, finished=None, error=None))


def note_machine(run: Layout) -> list[str]:
    """Note where the run continues, and return in what that differs from where it was begun."""
    found, now = read(run), arithmetic()
    if found is None or not found.machine:
        return []
    before = {key: value.rpartition(THEN)[2] for key, value in found.machine.items()}
    others = {
        key: now.get(key, UNSET) for key in sorted({*before, *now}) if before.get(key, UNSET) != now.get(key, UNSET)
    }
    if others:
        both = {key: f"{found.machine.get(key, UNSET)}{THEN}{value}" for key, value in others.items()}
        _write(run, replace(found, machine={**found.machine, **both}))
    return [f"{key}: {before.get(key, UNSET)} then, {value} now" for key, value in others.items()]


def processor_of(run: Layout) -> str | None:
    """Return the processor that the results on disk were made on; None if that is not known."""
    found = read(run)
    return found.machine.get("processor") if found else None


def note_files(run: Layout, saved: Mapping[str, str], replaced: Collection[str]) -> None:
    """Note the digests of data sets that have been saved, and forget those that are about to be replaced."""
    found = read(run)
    if found is None:
        return
    files = {name: digest for name, digest in {**found.files, **saved}.items() if name not in replaced}
    if files != found.files:
        _write(run, replace(found, files=files))


def finish(run: Layout) -> None:
    """Note that the run has ended; not if something that decides about its results has changed while it ran."""
    found = read(run)
    if found is not None and found.fingerprint == fingerprint(run):
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        _write(run, replace(found, finished=now, error=None))


def fail(run: Layout, error: str) -> None:
    """Note why the run has failed, unless it did so before it replaced finished results of earlier."""
    found = read(run)
    if found is not None and found.finished:
        return
    _write(run, replace(found or Provenance({}, None, None, versions()), finished=None, error=error))


def execution(run: Layout) -> str:
    """Return the name of the doing of the run that is under way; empty if there is none."""
    found = read(run)
    return found.execution if found else ""


def read(run: Layout) -> Provenance | None:
    """Return what is noted about the results on disk; None if nothing is, or nothing legible."""
    try:
        return Provenance(**json.loads(run.provenance.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def state(run: Layout) -> State:
    """Tell whether the results on disk are those that the run's configuration would make now, all of them or some."""
    found = read(run)
    if found is None or found.fingerprint != fingerprint(run):
        return "absent"
    if not found.finished or not all(run.metrics(cycle).is_file() for cycle in range(run.config.cycles)):
        return "interrupted"
    return "changed" if changed(run) else "finished"


def changed(run: Layout) -> list[Path]:
    """Return which of the files that a comparison reads of a finished run are not what the run saved."""
    found = read(run)
    try:
        same = json.loads(run.configuration.read_text(encoding="utf-8")) == deciding(run.config)
    except (OSError, ValueError):
        same = False
    others = [] if same else [run.configuration]
    for cycle in range(run.config.cycles):
        name = f"{cycle_name(cycle)}.metrics"
        if found is None or found.files.get(name) != file_digest(run.metrics(cycle)):
            others.append(run.metrics(cycle))
    return others


def _write(run: Layout, provenance: Provenance) -> None:
    write_json(run.provenance, {**vars(provenance), "fingerprint": dict(provenance.fingerprint)}, indent=2)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
