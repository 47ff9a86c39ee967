"""A folder of images: ``train/<class>/*.png`` and ``test/<class>/*.png`` (or jpg, jpeg)."""

from __future__ import annotations

import csv
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data.sources.base import RawData, Source
from kafal_pipeline.data.sources.checks import number_clients
from kafal_pipeline.data.sources.image_files import ImageFiles, common_shape

SUFFIXES = {".png", ".jpg", ".jpeg"}
CLIENTS = {split: f"{split}_clients.csv" for split in ("train", "test")}
DIGITS = 18
"""Of a client's number; longer ones, which int64 cannot hold, are names."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The images of one split: their paths and the names of their classes, sorted by both, and what is no image."""

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    skipped: tuple[Path, ...]


def source(root: Path, image_size: int | None) -> Source:
    """Return the source that reads the folder `root`."""
    if not root.is_dir():
        return Source("folder", root, (), True, lambda: _read(root, image_size))
    tables = [root / name for name in CLIENTS.values() if (root / name).is_file()]
    paths = [*_listing(root, "train").paths, *_listing(root, "test").paths, *tables]
    return Source("folder", root, tuple(paths), False, lambda: _read(root, image_size))


def _read(root: Path, image_size: int | None) -> RawData:
    if not root.is_dir():
        raise UserError(
            f"{root}: there is no such folder. Set dataset.path to an .npz file or to a folder with train/<class>/ and "
            "test/<class>/ (docs/data.md)."
        )
    train, test = _listing(root, "train"), _listing(root, "test")
    skipped = train.skipped + test.skipped
    if skipped:
        logger.warning("%s: %d entries are no images and are left out, such as %s", root, len(skipped), skipped[0])
    classes = tuple(sorted(set(train.classes)))
    unknown = sorted(set(test.classes) - set(classes))
    if unknown:
        raise UserError(
            f"{root}/test: found the class {unknown[0]!r}, which train/ has not. It has: {', '.join(classes)}."
        )
    if len(classes) < 2:
        raise UserError(f"{root}/train: found one class, {classes[0]!r}; at least 2 are needed.")
    shape = common_shape([*train.paths, *test.paths], image_size)
    index = {name: number for number, name in enumerate(classes)}
    return RawData(
        ImageFiles(train.paths, shape),
        np.array([index[name] for name in train.classes], dtype=np.int64),
        ImageFiles(test.paths, shape),
        np.array([index[name] for name in test.classes], dtype=np.int64),
        classes,
        *number_clients(str(root), *_clients(root, train.paths, test.paths)),
    )


def _listing(root: Path, split: str) -> Listing:
    """Return the images of ``root/split``; hidden files are passed over."""
    folder = root / split
    if not folder.is_dir():
        raise UserError(
            f"{root}: found no folder {split}/; dataset.path must name an .npz file or a folder with train/<class>/ "
            "and test/<class>/ (docs/data.md)."
        )
    paths, names, skipped = [], [], []
    for class_folder in _visible(folder):
        if not class_folder.is_dir():
            skipped.append(class_folder)
            continue
        _refuse_outside(root, class_folder)
        entries = _visible(class_folder)
        images = [path for path in entries if path.suffix.lower() in SUFFIXES]
        skipped += [path for path in entries if path.suffix.lower() not in SUFFIXES]
        if not images:
            raise UserError(f"{class_folder}: found no image; allowed: {', '.join(sorted(SUFFIXES))}.")
        for path in images:
            _refuse_outside(root, path)
            if not path.is_file():  # a folder, a link to nothing, or a pipe, which would be waited for
                raise UserError(f"{path}: is no file, though it is called an image. Remove or rename it.")
        paths += images
        names += [class_folder.name] * len(images)
    if not paths:
        raise UserError(f"{folder}: found no class folders; it must hold one folder of images for each class.")
    return Listing(tuple(paths), tuple(names), tuple(skipped))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _refuse_outside(root: Path, path: Path) -> None:
    """Refuse links out of the folder: a data set from elsewhere must not pull in files of this machine."""
    target = Path(os.path.realpath(path))  # unlike Path.resolve, it also ends where links go in circles
    if path.is_symlink() and not target.is_relative_to(os.path.realpath(root)):
        raise UserError(f"{path}: is a link to {target}, outside {root}. Copy the file into the folder.")


def _clients(root: Path, train: tuple[Path, ...], test: tuple[Path, ...]) -> tuple[NDArray | None, NDArray | None]:
    """Return the client of each training and each test image from their tables, None where there is no such file.

    They are int64 if all are written as integers, else strings.
    """
    named = [_named_clients(root, split, paths) for split, paths in (("train", train), ("test", test))]
    written = [name for names in named for name in names or ()]
    whole = all(name.isascii() and name.isdigit() and len(name) <= DIGITS for name in written)
    first, second = (None if names is None else np.array(names, dtype=np.int64 if whole else str) for names in named)
    return first, second


def _named_clients(root: Path, split: str, paths: tuple[Path, ...]) -> list[str] | None:
    table = root / CLIENTS[split]
    if not table.is_file():
        return None
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"file", "client"} <= set(reader.fieldnames or ()):
                raise UserError(f"{table}: found the columns {reader.fieldnames}; it must have `file` and `client`.")
            rows = [(row["file"] or "", (row["client"] or "").strip()) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as a table in UTF-8 ({error}).") from error
    clients = dict(rows)
    if len(clients) != len(rows):
        raise UserError(f"{table}: names a file twice; each image of {split}/ must stand in one row.")
    keys = [path.relative_to(root / split).as_posix() for path in paths]
    wrong = sorted(set(keys) ^ set(clients))
    if wrong:
        problem = "is not in the table" if wrong[0] in keys else f"is no image under {split}/"
        raise UserError(
            f"{table}: {wrong[0]} {problem} ({len(wrong)} such files). The column `file` must name every image under "
            f"{split}/ once, as <class>/<name>."
        )
    nobody = [key for key in keys if not clients[key]]
    if nobody:
        raise UserError(f"{table}: {nobody[0]} has no client ({len(nobody)} such rows). Fill the column `client`.")
    return [clients[key] for key in keys]
