"""An ``.npz`` file with MedMNIST's keys, or with features in the place of images."""

from __future__ import annotations

import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.image_batches import Pixels, Rows
from kafal_pipeline.data.sources.base import RawData, Source, reading
from kafal_pipeline.data.sources.checks import (
    as_clients,
    as_features,
    as_images,
    as_integers,
    as_names,
    check_classes,
    check_same_shape,
    class_names,
    number_clients,
)
from kafal_pipeline.data.sources.test_share import check_test_share, set_aside

IMAGES, FEATURES = "images", "features"
"""Contents of a file: the second part of its keys."""

OPTIONAL = ("train_clients", "test_clients", "classes")

BOMB_BYTES, BOMB_RATIO = 64 << 20, 200  # a larger array that was packed by more than this ratio holds no pictures

READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,  # a password, or a compression that is not there
    MemoryError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions of damaged archives and arrays."""


def source(path: Path, config: DatasetConfig) -> Source:
    """Return the source that reads the file `path`."""
    with reading(path):
        return Source("npz", path.parent, (path,), not path.is_file(), lambda: _read(path, config))


def _read(path: Path, config: DatasetConfig) -> RawData:
    with reading(path):
        arrays = _arrays(path, config.test_share)
    kind = FEATURES if "train_features" in arrays else IMAGES
    if kind == FEATURES and config.image_size is not None:
        raise UserError(f"dataset.image_size: found {config.image_size}, but {path} holds features. Leave the key out.")
    train = _split(path, arrays, "train", kind)
    if config.test_share is None:
        test = _split(path, arrays, "test", kind)
        check_same_shape(str(path), train.images.shape, test.images.shape)
    else:
        aside = set_aside(str(path), config.test_share, train.clients, len(train.labels))
        train, test = train.of(~aside), train.of(aside)
    given = class_names(config)
    names = _class_names(path, arrays["classes"]) if "classes" in arrays else given
    if names is not None and given not in {None, names}:
        raise UserError(
            f"dataset.classes: found {list(given or ())}, but {path} has the key classes with {list(names)}. "
            "They must be equal, or one of them be left out."
        )
    basis = "dataset.classes" if given is not None else "the key classes"
    classes = check_classes(str(path), train.labels, test.labels, names, basis)
    clients = number_clients(str(path), train.clients, test.clients)
    return RawData(train.images, train.labels, test.images, test.labels, classes, *clients)


class _Split(NamedTuple):
    images: Pixels
    labels: NDArray[np.int64]
    clients: NDArray | None  # what they are called

    def of(self, chosen: NDArray[np.bool_]) -> _Split:
        images = Rows(cast("NDArray[Any]", self.images), np.flatnonzero(chosen))
        return _Split(images, self.labels[chosen], None if self.clients is None else self.clients[chosen])


def _split(path: Path, arrays: dict[str, NDArray], split: str, kind: str) -> _Split:
    """Return images or features, labels and clients of a split, checked."""
    checked = as_features if kind == FEATURES else as_images
    images = checked(f"{path}: {split}_{kind}", arrays[f"{split}_{kind}"])
    labels = as_integers(f"{path}: {split}_labels", arrays[f"{split}_labels"], len(images), least=-1)
    called = arrays.get(f"{split}_clients")
    clients = None if called is None else as_clients(f"{path}: {split}_clients", called, len(images))
    return _Split(images, labels, clients)


def _arrays(path: Path, test_share: float | None) -> dict[str, NDArray]:
    """Return the known arrays of the file; arrays of Python objects, which would have to be unpickled, are refused."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Set dataset.path to an .npz file (docs/data.md).")
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is no zip archive")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            training, test = _keys(path, list(members))
            required = (*training, *(test if test_share is None else ()))
            missing = [key for key in required if key not in members]
            if not set(missing) & set(training):
                tests = [key for key in (*test, "test_clients") if key in members]
                check_test_share(str(path), ", ".join(tests) or None, test_share)
            if missing:
                raise UserError(
                    f"{path}: found the keys {', '.join(members) or '(none)'}; missing: {', '.join(missing)} "
                    "(docs/data.md lists them)."
                )
            return {key: _array(archive, members[key]) for key in (*required, *OPTIONAL) if key in members}
    except PermissionError:
        raise
    except READ_ERRORS as error:
        raise UserError(
            f"{path}: cannot be read as an .npz file of plain arrays ({error}). Copy it again, or write it again with "
            "numpy.savez and without object arrays."
        ) from error


def _keys(path: Path, found: list[str]) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the keys of training and of test set in a file with the keys `found`."""
    both = [[key for key in (f"train_{kind}", f"test_{kind}") if key in found] for kind in (IMAGES, FEATURES)]
    if all(both):
        raise UserError(
            f"{path}: found {both[0][0]} and {both[1][0]}; allowed: images or features. Leave the ones or the others "
            "out, or write two files."
        )
    kind = FEATURES if both[1] else IMAGES
    return (f"train_{kind}", "train_labels"), (f"test_{kind}", "test_labels")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray:
    """Read one array, after checking that it is as large as it says: numpy allocates what a header claims."""
    if member.file_size > max(BOMB_BYTES, BOMB_RATIO * member.compress_size):
        raise ValueError(f"{member.filename} would unpack {member.compress_size} bytes to {member.file_size}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(f"{member.filename} has the version {version} of the format, not 1.0 or 2.0")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds pickled objects")
        claimed, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if claimed != there or min(shape, default=0) < 0:
        raise ValueError(f"{member.filename} claims {claimed} bytes in the shape {shape} and has {there}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _class_names(path: Path, array: NDArray) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise UserError(
            f"{path}: classes: found {array.dtype} of shape {array.shape}; allowed: one list of strings, all different."
        )
    names = as_names(f"{path}: classes", array)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: classes: found {twice!r} twice; allowed: one list of strings, all different.")
    return names
