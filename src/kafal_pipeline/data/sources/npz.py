"""An ``.npz`` file with MedMNIST's keys."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.data.sources.base import RawData, Source
from kafal_pipeline.data.sources.checks import as_images, as_integers, check_classes, check_same_shape
from kafal_pipeline.errors import UserError

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
OPTIONAL = ("train_clients", "classes")


def source(path: Path) -> Source:
    """Return the source that reads the file `path`."""
    return Source("npz", path.parent, (path,), not path.is_file(), lambda: _read(path))


def _read(path: Path) -> RawData:
    arrays = _arrays(path)
    images = {split: as_images(f"{path}: {split}_images", arrays[f"{split}_images"]) for split in ("train", "test")}
    labels = {
        split: as_integers(f"{path}: {split}_labels", arrays[f"{split}_labels"], len(images[split]))
        for split in ("train", "test")
    }
    check_same_shape(str(path), images["train"].shape, images["test"].shape)
    names = _names(path, arrays["classes"]) if "classes" in arrays else None
    clients = arrays.get("train_clients")
    return RawData(
        images["train"],
        labels["train"],
        images["test"],
        labels["test"],
        check_classes(str(path), labels["train"], labels["test"], names),
        None if clients is None else as_integers(f"{path}: train_clients", clients, len(images["train"])),
    )


def _arrays(path: Path) -> dict[str, NDArray]:
    """Return the known arrays of the file; arrays of Python objects, which would have to be unpickled, are refused."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Set dataset.path to an .npz file (docs/data.md).")
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no zip archive")
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in REQUIRED if key not in archive.files]
            if missing:
                raise UserError(
                    f"{path}: found the keys {', '.join(archive.files) or '(none)'}; missing: {', '.join(missing)} "
                    "(docs/data.md lists them)."
                )
            return {key: archive[key] for key in (*REQUIRED, *OPTIONAL) if key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(
            f"{path}: cannot be read as an .npz file of plain arrays ({error}). Copy it again, or write it again with "
            "numpy.savez and without object arrays."
        ) from error


def _names(path: Path, array: NDArray) -> tuple[str, ...]:
    names = tuple(str(name) for name in array.ravel())
    if array.ndim != 1 or array.dtype.kind != "U" or len(set(names)) != len(names):
        raise UserError(
            f"{path}: classes: found {array.dtype} of shape {array.shape}; allowed: one list of strings, all different."
        )
    return names
