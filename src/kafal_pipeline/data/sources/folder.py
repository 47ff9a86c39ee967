"""A folder of images: ``train/<class>/*.png`` and ``test/<class>/*.png`` (or jpg, jpeg), and ``unlabelled/``."""

from __future__ import annotations

import csv
import logging
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources.base import RawData, Source, reading
from kafal_pipeline.data.sources.checks import as_name, class_names, number_clients
from kafal_pipeline.data.sources.image_files import ImageFiles, common_shape
from kafal_pipeline.data.sources.listing import UNLABELLED, Listing, inside, list_split, list_unlabelled
from kafal_pipeline.data.sources.test_share import check_test_share, set_aside

CLIENTS = {split: f"{split}_clients.csv" for split in ("train", "test")}
DIGITS = 18  # of a client's number; longer ones, which int64 cannot hold, are names

logger = logging.getLogger(__name__)


class _Folder(NamedTuple):
    """What lies in the folder; without a test set `test` is empty."""

    train: Listing
    unlabelled: Listing
    test: Listing

    @property
    def paths(self) -> list[Path]:
        """Images that may be trained on, the labelled ones first."""
        return self.train.paths + self.unlabelled.paths

    @property
    def keys(self) -> list[str]:
        """What ``train_clients.csv`` calls them."""
        return self.train.keys + self.unlabelled.keys


def source(root: Path, config: DatasetConfig) -> Source:
    """Return the source that reads the folder `root`."""
    with reading(root):
        if not root.is_dir():
            return Source("folder", root, (), True, lambda: _read(root, config))
        tables = [inside(root, root / name) for name in CLIENTS.values() if (root / name).is_file()]
        found = _listed(root, config)
        return Source("folder", root, (*found.paths, *found.test.paths, *tables), False, lambda: _read(root, config))


def _read(root: Path, config: DatasetConfig) -> RawData:
    with reading(root):
        if not root.is_dir():
            raise UserError(
                f"{root}: there is no such folder. Set dataset.path to an .npz file or to a folder with train/<class>/ "
                "and test/<class>/ (docs/data.md)."
            )
        found = _listed(root, config)
        skipped = [path for listing in found for path in listing.skipped]
        if skipped:
            logger.warning("%s: %d entries are no images and are left out, such as %s", root, len(skipped), skipped[0])
        classes = _classes(root, found, class_names(config))
        shape = common_shape([*found.paths, *found.test.paths], config.image_size)
        index = {name: number for number, name in enumerate(classes)}
        train, test = (np.array([index[name] for name in listing.classes], dtype=np.int64) for listing in found[::2])
        train = np.concatenate([train, np.full(len(found.unlabelled.paths), -1)])
        paths, tests = found.paths, found.test.paths
        held, tested = _clients(root, found)
        if config.test_share is not None:
            aside = set_aside(str(root), config.test_share, held, len(train))
            train, test = train[~aside], train[aside]
            paths, tests = ([paths[row] for row in np.flatnonzero(chosen)] for chosen in (~aside, aside))
            held, tested = (None, None) if held is None else (held[~aside], held[aside])
        files, test_files = (tuple(path.relative_to(root).as_posix() for path in part) for part in (paths, tests))
        return RawData(
            ImageFiles(tuple(paths), shape, config.resize),
            train,
            ImageFiles(tuple(tests), shape, config.resize),
            test,
            classes,
            *number_clients(str(root), held, tested),
            train_files=files,
            test_files=test_files if found.unlabelled.paths else None,
        )


def _listed(root: Path, config: DatasetConfig) -> _Folder:
    """List the images, after checking which of the three folders must be there."""
    unlabelled = list_unlabelled(root)
    # Classes that nothing has been labelled with yet need no image.
    known = (class_names(config) or ()) if unlabelled.paths else ()
    if unlabelled.paths and not known and not (root / "train").exists():
        raise UserError(
            f"{root}: found images without labels but no folder train/, which would name the classes. Name them "
            "in dataset.classes, such as dataset.classes=[cat,dog]."
        )
    tests = [name for name in ("test", CLIENTS["test"]) if (root / name).exists()]
    train = Listing() if known and not (root / "train").exists() else list_split(root, "train", known)
    if config.test_share is not None or not tests:
        check_test_share(str(root), ", ".join(tests) or None, config.test_share)
        return _Folder(train, unlabelled, Listing())
    return _Folder(train, unlabelled, list_split(root, "test"))


def _classes(root: Path, found: _Folder, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes, `names` (``dataset.classes``) or those of train/, after comparing them with the folders."""
    trained, tested = set(found.train.classes), set(found.test.classes)
    for name in sorted(trained if found.unlabelled.paths else trained - tested - set(names or ())):
        if name.casefold().lstrip("_.- ").startswith(UNLABELLED):
            raise UserError(
                f"{root}/train: found the folder {name!r}. Every folder under train/ is a class. If its images have no "
                "labels, move them to unlabelled/, next to train/; if it is a class, give it test images, or name all "
                "classes in dataset.classes."
            )
    for split, there in (("train", trained), ("test", tested)):
        if names is not None and (unknown := sorted(there - set(names))):
            raise UserError(
                f"{root}/{split}: found the class {unknown[0]!r}, which dataset.classes lacks. "
                f"{did_you_mean(unknown[0], names)}"
            )
    if names is not None:
        return names
    if unknown := sorted(tested - trained):
        raise UserError(
            f"{root}/test: found the class {unknown[0]!r}, which train/ has not. It has: {', '.join(sorted(trained))}."
        )
    if len(trained) < 2:
        raise UserError(
            f"{root}/train: found one class, {found.train.classes[0]!r}; at least 2 are needed. Classes without "
            "a label so far can be named in dataset.classes."
        )
    return tuple(sorted(trained))


def _clients(root: Path, found: _Folder) -> tuple[NDArray | None, NDArray | None]:
    """Return what the tables call the client of each training and of each test image, None where there is no table.

    They are int64 if all are written as integers, else strings.
    """
    called = [
        _client_names(
            root / CLIENTS["train"], found.keys, "under train/ or unlabelled/", "<class>/<name> or unlabelled/<path>"
        )
        if found.unlabelled.paths
        else _client_names(root / CLIENTS["train"], found.keys, "under train/", "<class>/<name>"),
        _client_names(root / CLIENTS["test"], found.test.keys, "under test/", "<class>/<name>"),
    ]
    whole = all(name.isascii() and name.isdigit() and len(name) <= DIGITS for names in called for name in names or ())
    first, second = (None if names is None else np.array(names, dtype=np.int64 if whole else str) for names in called)
    return first, second


def _client_names(table: Path, keys: list[str], where: str, form: str) -> list[str] | None:
    """Return the client of each image of `keys`, which messages call images `where`, in the form `form`."""
    if not table.is_file():
        return None
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"file", "client"} <= set(reader.fieldnames or ()):
                raise UserError(f"{table}: found the columns {reader.fieldnames}; it must have `file` and `client`.")
            rows = [(unicodedata.normalize("NFC", row["file"] or ""), row["client"] or "") for row in reader]
    except PermissionError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as a table in UTF-8 ({error}).") from error
    clients = dict(rows)
    if len(clients) != len(rows):
        raise UserError(f"{table}: names a file twice; each image {where} must have one row.")
    wrong = sorted(set(keys) ^ set(clients))
    if wrong:
        problem = "is not in the table" if wrong[0] in set(keys) else f"is no image {where}"
        raise UserError(
            f"{table}: {wrong[0]} {problem} ({len(wrong)} such files). The column `file` must name every image "
            f"{where} once, as {form}."
        )
    return [as_name(f"{table}: client of {key}", clients[key].strip()) for key in keys]
