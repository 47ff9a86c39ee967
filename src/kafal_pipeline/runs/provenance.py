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
from kafal_pipeline.common.versions import versions
from kafal_pipeline.config import Config
from kafal_pipeline.runs.code_digest import sources_digest

PROVENANCE = "provenance.json"
CONFIGURATION = "configuration.json"

OUTPUTS = Path("data/07_model_output")
"""Folder of the runs' outputs, in the project's folder."""


class Absent(UserError):
    """The images or the split of a run are not there."""


Fingerprint = Mapping[str, str]
State = Literal["finished", "changed", "interrupted", "absent"]
"""Of results: ``changed`` are those that were finished, and are no longer what the run saved."""


@dataclass(frozen=True)
class Provenance:
    """What is known of the results in a folder: `finished` and `error` are None where they do not apply.

    `execution` is an arbitrary name of this one doing of the run, the same before and after an interruption.
    `files` has the digest of each data set that its cycles have saved.
    """

    fingerprint: Fingerprint
    finished: str | None
    error: str | None
    versions: Mapping[str, str]
    execution: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def deciding(config: Config) -> dict[str, Any]:
    """Return the parameters that results depend on."""
    values = config.model_dump(
        mode="json",
        exclude={"tracking": True, "restart": True, "training": {"processes", "device", "checkpoint_every"}},
    )
    return json.loads(json.dumps(values))


def fingerprint(root: Path, config: Config) -> dict[str, str]:
    """Return what decides about the results of a run: digests of configuration, images, split, code and first weights.

    Parameters
    ----------
    root
        The project's folder.

    Raises
    ------
    Absent
        If the split, the images or the file of pretrained weights are not there.
    """
    store = root / "data/02_intermediate" / config.dataset.folder / "images/meta.json"
    split = root / "data/03_primary" / config.split_path / "splits.json"
    for path in (store, split):
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
    return {
        "configuration": _digest(json.dumps(deciding(config), sort_keys=True).encode()),
        "images": _digest(json.dumps(images, sort_keys=True).encode()),
        "split": _digest(split.read_bytes()),
        "sources": sources_digest(config),
        **weights,
    }


def begin(root: Path, config: Config) -> None:
    """Note what makes the results of the run that begins now."""
    _write(root, config, Provenance(fingerprint(root, config), None, None, versions(), uuid.uuid4().hex))


def forget(root: Path, config: Config) -> None:
    """Note nothing any more: the results are about to be replaced."""
    _path(root, config).unlink(missing_ok=True)


def reopen(root: Path, config: Config) -> None:
    """Note that the run goes on, so that it is not finished."""
    found = read(root / OUTPUTS / config.run_path)
    if found is not None and (found.finished or found.error):
        _write(root, config, replace(found, finished=None, error=None))


def note_files(root: Path, config: Config, saved: Mapping[str, str], replaced: Collection[str]) -> None:
    """Note the digests of data sets that have been saved, and forget those that are about to be replaced."""
    found = read(root / OUTPUTS / config.run_path)
    if found is None:
        return
    files = {name: digest for name, digest in {**found.files, **saved}.items() if name not in replaced}
    if files != found.files:
        _write(root, config, replace(found, files=files))


def finish(root: Path, config: Config) -> None:
    """Note that the run has ended; not if something that decides about its results has changed while it ran."""
    found = read(root / OUTPUTS / config.run_path)
    if found is not None and found.fingerprint == fingerprint(root, config):
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        _write(root, config, replace(found, finished=now, error=None))


def fail(root: Path, config: Config, error: str) -> None:
    """Note why the run has failed, unless it did so before it replaced finished results of earlier."""
    found = read(root / OUTPUTS / config.run_path)
    if found is not None and found.finished:
        return
    _write(root, config, replace(found or Provenance({}, None, None, versions()), finished=None, error=error))


def execution(root: Path, config: Config) -> str:
    """Return the name of the doing of the run that is under way; empty if there is none."""
    found = read(root / OUTPUTS / config.run_path)
    return found.execution if found else ""


def read(folder: Path) -> Provenance | None:
    """Return what is noted about the results in a run's folder of outputs; None if nothing is, or nothing legible."""
    try:
        return Provenance(**json.loads((folder / PROVENANCE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def state(root: Path, config: Config) -> State:
    """Tell whether the results on disk are those that `config` would make now, all of them or some."""
    folder = root / OUTPUTS / config.run_path
    found = read(folder)
    if found is None or found.fingerprint != fingerprint(root, config):
        return "absent"
    metrics = [folder / f"cycle_{cycle:02d}" / "metrics.json" for cycle in range(config.cycles)]
    if not found.finished or not all(file.is_file() for file in metrics):
        return "interrupted"
    return "changed" if changed(root, config) else "finished"


def changed(root: Path, config: Config) -> list[Path]:
    """Return which of the files that a comparison reads of a finished run are not what the run saved."""
    folder = root / OUTPUTS / config.run_path
    found, others = read(folder), []
    try:
        same = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8")) == deciding(config)
    except (OSError, ValueError):
        same = False
    if not same:
        others.append(folder / CONFIGURATION)
    for cycle in range(config.cycles):
        name = f"cycle_{cycle:02d}"
        file = folder / name / "metrics.json"
        if found is None or found.files.get(f"{name}.metrics") != file_digest(file):
            others.append(file)
    return others


def _path(root: Path, config: Config) -> Path:
    return root / OUTPUTS / config.run_path / PROVENANCE


def _write(root: Path, config: Config, provenance: Provenance) -> None:
    write_json(_path(root, config), {**vars(provenance), "fingerprint": dict(provenance.fingerprint)}, indent=2)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
