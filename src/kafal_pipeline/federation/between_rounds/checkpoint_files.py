"""The files of checkpoints: safetensors with a description, and a digest of the content in the name."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from kafal_pipeline.common.files import sync_folder
from kafal_pipeline.models.state import Arrays

NUMBERED = ("client", "local", "watched", "broadcast")
"""Parts of a state that there is one of for each client or round: not all of them change in a round."""

SUFFIX = ".safetensors"
DIGEST = 16
"""Characters of a file's digest in its name."""


Index = dict[str, dict[int, int]]
"""The round whose file holds each part, by kind and number."""


class Damaged(Exception):
    """A file of a checkpoint is missing, cut short, or not what was written."""


def files_in(folder: Path) -> dict[int, Path]:
    """Return the files of checkpoints in a folder, by their rounds."""
    return {int(path.name.partition("-")[0]): path for path in folder.glob(f"[0-9]*-*{SUFFIX}")}


def write(folder: Path, temporary: Path, round_: int, arrays: Arrays, meta: dict[str, Any]) -> None:
    """Write the file of a round into `folder`, durably: `temporary`, fsync, rename, fsync of the folder."""
    from safetensors.numpy import save_file  # only where something is written

    folder.mkdir(parents=True, exist_ok=True)
    # The library writes an array's memory as it lies, whatever its order.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    save_file(ordered, temporary, {"meta": json.dumps(meta)})
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]
        os.fsync(file.fileno())
    temporary.replace(folder / f"{round_:05d}-{digest}{SUFFIX}")
    sync_folder(folder)


def parts_of(arrays: Arrays) -> dict[str, Arrays]:
    """Return arrays by part; a part's name may have a slash in it, and so may an array's."""
    parts: dict[str, Arrays] = {}
    for key, array in arrays.items():
        first, rest = key.split("/", 1)
        if first in NUMBERED:
            number, rest = rest.split("/", 1)
            first = f"{first}/{number}"
        parts.setdefault(first, {})[rest] = array
    return parts


def index_of(meta: dict[str, Any]) -> Index:
    """Return the round whose file holds each part, by kind and number."""
    return {kind: {int(number): int(at) for number, at in places.items()} for kind, places in meta["at"].items()}


def check(path: Path) -> None:
    """Check that a file's content is what its name says."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST]
    except OSError as error:
        raise Damaged(f"{path}: the checkpoint cannot be read ({error.strerror}).") from None
    if path.name.removesuffix(SUFFIX).partition("-")[2] != digest:
        raise Damaged(f"{path}: the checkpoint is damaged.")


def meta_of(path: Path) -> dict[str, Any]:
    """Return the description that a file holds, once its content is known to be whole."""
    from safetensors import SafetensorError, safe_open  # only where something is read

    check(path)
    try:
        with safe_open(path, framework="numpy") as content:
            meta: dict[str, Any] = json.loads(content.metadata()["meta"])
        index_of(meta)  # which has other forms in files of other programs
        if not {"owner", "cycle", "round", "seconds", "columns"} <= meta.keys():
            raise KeyError
        return meta
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise Damaged(f"{path}: the checkpoint is damaged.") from None


def arrays_of(path: Path) -> Arrays:
    """Return the arrays that a file holds, which has been checked."""
    from safetensors.numpy import load_file  # only where something is read

    arrays: Arrays = load_file(path)
    return arrays
