"""A folder of images: ``train/<class>/*.png`` and ``test/<class>/*.png`` (or jpg, jpeg)."""

import csv
import logging
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources.base import RawData, Source, reading
from kafal_pipeline.data.sources.checks import as_name, number_clients
from kafal_pipeline.data.sources.image_files import ImageFiles, common_shape

SUFFIXES = {".png", ".jpg", ".jpeg"}
CLIENTS = {split: f"{split}_clients.csv" for split in ("train", "test")}
DIGITS = 18  # of a client's number; longer ones, which int64 cannot hold, are names

UNLABELLED = ("unlabelled", "unlabeled")
"""Folders whose names begin so are taken for images without labels, unless test/ has them too."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The images of one split, sorted by class and name, and what is no image.

    A file's key is ``<class>/<name>`` in composed characters (NFC), whichever way the file system writes them.
    """

    paths: tuple[Path, ...]
    keys: tuple[str, ...]
    skipped: tuple[Path, ...]

    @property
    def classes(self) -> list[str]:
        """The class of each image."""
        return [key.partition("/")[0] for key in self.keys]


def source(root: Path, config: DatasetConfig) -> Source:
    """Return the source that reads the folder `root`."""
    with reading(root):
        if not root.is_dir():
            return Source("folder", root, (), True, lambda: _read(root, config))
        tables = [_inside(root, root / name) for name in CLIENTS.values() if (root / name).is_file()]
        paths = [*_listing(root, "train").paths, *_listing(root, "test").paths, *tables]
        return Source("folder", root, tuple(paths), False, lambda: _read(root, config))


def _read(root: Path, config: DatasetConfig) -> RawData:
    with reading(root):
        if not root.is_dir():
            raise UserError(
                f"{root}: there is no such folder. Set dataset.path to an .npz file or to a folder with train/<class>/ "
                "and test/<class>/ (docs/data.md)."
            )
        train, test = _listing(root, "train"), _listing(root, "test")
        skipped = train.skipped + test.skipped
        if skipped:
            logger.warning("%s: %d entries are no images and are left out, such as %s", root, len(skipped), skipped[0])
        classes = _classes(root, train, test)
        shape = common_shape([*train.paths, *test.paths], config.image_size)
        index = {name: number for number, name in enumerate(classes)}
        return RawData(
            ImageFiles(train.paths, shape, config.resize),
            np.array([index[name] for name in train.classes], dtype=np.int64),
            ImageFiles(test.paths, shape, config.resize),
            np.array([index[name] for name in test.classes], dtype=np.int64),
            classes,
            *number_clients(str(root), *_clients(root, train, test)),
            train_files=tuple(path.relative_to(root).as_posix() for path in train.paths),
        )


def _classes(root: Path, train: Listing, test: Listing) -> tuple[str, ...]:
    """Return the classes, which are those of train/, after comparing them with test/."""
    classes, tested = set(train.classes), set(test.classes)
    if unknown := sorted(tested - classes):
        raise UserError(
            f"{root}/test: found the class {unknown[0]!r}, which train/ has not. It has: {', '.join(sorted(classes))}."
        )
    for name in sorted(classes - tested):
        if name.casefold().lstrip("_.- ").startswith(UNLABELLED):
            raise UserError(
                f"{root}/train: found the folder {name!r}. Every folder under train/ is a class, and images without "
                "labels are not supported. Move it out of train/; or, if it is a class, give it test images."
            )
    if len(classes) < 2:
        raise UserError(f"{root}/train: found one class, {train.classes[0]!r}; at least 2 are needed.")
    return tuple(sorted(classes))


def _listing(root: Path, split: str) -> Listing:
    """Return the images of ``root/split``; hidden files are passed over."""
    folder = root / split
    if not folder.is_dir():
        raise UserError(
            f"{root}: found no folder {split}/; dataset.path must name an .npz file or a folder with train/<class>/ "
            "and test/<class>/ (docs/data.md)."
        )
    paths: list[Path] = []
    keys: list[str] = []
    skipped: list[Path] = []
    for class_name, class_folder in _visible(_inside(root, folder)).items():
        if not class_folder.is_dir():
            skipped.append(class_folder)
            continue
        entries = _visible(_inside(root, class_folder))
        images = {name: path for name, path in entries.items() if path.suffix.lower() in SUFFIXES}
        skipped += [path for name, path in entries.items() if name not in images]
        if not images:
            raise UserError(f"{class_folder}: found no image; allowed: {', '.join(sorted(SUFFIXES))}.")
        for path in images.values():
            if not _inside(root, path).is_file():  # a folder, a link to nothing, or a pipe, which would be waited for
                raise UserError(f"{path}: is no file, though it is called an image. Remove or rename it.")
        paths += images.values()
        keys += [f"{class_name}/{name}" for name in images]
    if not paths:
        raise UserError(f"{folder}: found no class folders; it must hold one folder of images for each class.")
    return Listing(tuple(paths), tuple(keys), tuple(skipped))


def _visible(folder: Path) -> dict[str, Path]:
    """Return what a folder holds by name, sorted, without hidden files."""
    entries: dict[str, Path] = {}
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        name = as_name(str(folder), path.name)
        if name in entries:
            raise UserError(
                f"{folder}: found the name {name!r} twice, in composed and in decomposed characters (NFC and NFD). "
                "Rename one, or merge them."
            )
        entries[name] = path
    return dict(sorted(entries.items()))


def _inside(root: Path, path: Path) -> Path:
    """Refuse links out of the folder: a data set from elsewhere must not pull in files of this machine."""
    target = Path(os.path.realpath(path))  # unlike Path.resolve, it also ends where links go in circles
    if path.is_symlink() and not target.is_relative_to(os.path.realpath(root)):
        raise UserError(
            f"{path}: is a link to {target}, outside {root}. Links within a dataset folder must stay in it: copy or "
            "move what it leads to into the folder (dataset.path itself may be anywhere)."
        )
    return path


def _clients(root: Path, train: Listing, test: Listing) -> tuple[NDArray | None, NDArray | None]:
    """Return what the tables call the client of each training and of each test image, None where there is no table.

    They are int64 if all are written as integers, else strings.
    """
    called = [_client_names(root, split, listing) for split, listing in (("train", train), ("test", test))]
    whole = all(name.isascii() and name.isdigit() and len(name) <= DIGITS for names in called for name in names or ())
    first, second = (None if names is None else np.array(names, dtype=np.int64 if whole else str) for names in called)
    return first, second


def _client_names(root: Path, split: str, listing: Listing) -> list[str] | None:
    table = root / CLIENTS[split]
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
        raise UserError(f"{table}: names a file twice; each image under {split}/ must have one row.")
    wrong = sorted(set(listing.keys) ^ set(clients))
    if wrong:
        problem = "is not in the table" if wrong[0] in listing.keys else f"is no image under {split}/"
        raise UserError(
            f"{table}: {wrong[0]} {problem} ({len(wrong)} such files). The column `file` must name every image under "
            f"{split}/ once, as <class>/<name>."
        )
    return [as_name(f"{table}: client of {key}", clients[key].strip()) for key in listing.keys]
