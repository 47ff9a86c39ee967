"""Lists the images in a dataset folder: ``train/<class>/``, ``test/<class>/`` and ``unlabelled/``."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data.sources.checks import as_name

SUFFIXES = {".png", ".jpg", ".jpeg"}

UNLABELLED = ("unlabelled", "unlabeled")
"""Names of the folder next to train/ whose images have no label."""


@dataclass(frozen=True)
class Listing:
    """Images, sorted by their keys within a folder, and what is no image.

    A file's key is its path below ``train/`` or ``test/``, ``<class>/<name>``, or ``unlabelled/<path>``, in composed
    characters (NFC), whichever way the file system writes them.
    """

    paths: list[Path] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The class of each image of ``train/`` or ``test/``."""
        return [key.partition("/")[0] for key in self.keys]


def list_split(root: Path, split: str, may_be_empty: Collection[str] = ()) -> Listing:
    """Return the images of ``root/split``; hidden files are passed over.

    `may_be_empty`: classes whose folders need no image. Raises `UserError` if the folder is not there, or what is in it
    is not as it should be.
    """
    folder = root / split
    if not folder.is_dir():
        raise UserError(
            f"{root}: found no folder {split}/; dataset.path must name an .npz file or a folder with train/<class>/ "
            "and test/<class>/ (docs/data.md)."
        )
    listing = Listing()
    for class_name, class_folder in _visible(inside(root, folder)).items():
        if class_folder.is_dir():
            if not _add_images(listing, root, class_folder, class_name) and class_name not in may_be_empty:
                raise UserError(f"{class_folder}: found no image; allowed: {', '.join(sorted(SUFFIXES))}.")
        else:
            listing.skipped.append(class_folder)
    if not listing.paths and not may_be_empty:
        raise UserError(f"{folder}: found no class folders; it must hold one folder of images for each class.")
    return listing


def list_unlabelled(root: Path) -> Listing:
    """Return the images without labels, at any depth of the folder ``unlabelled/``; none if it is not there.

    Raises `UserError` if it is empty, or what is in it is not as it should be.
    """
    left = [(name, root / name) for name in UNLABELLED if (root / name).is_dir()]
    if len(left) > 1:
        raise UserError(
            f"{root}: found the folders {' and '.join(UNLABELLED)}. Put all images without labels into one."
        )
    listing, seen = Listing(), set()
    while left:
        key, folder = left.pop()
        place = os.path.realpath(inside(root, folder))
        if place in seen:
            raise UserError(f"{folder}: leads to {place}, which is read already. Remove the link.")
        seen.add(place)
        _add_images(listing, root, folder, key, left)
    if seen and not listing.paths:
        raise UserError(
            f"{folder}: found no image; allowed: {', '.join(sorted(SUFFIXES))}. Remove the folder if all images have "
            "labels."
        )
    order = sorted(range(len(listing.keys)), key=listing.keys.__getitem__)
    return Listing([listing.paths[i] for i in order], [listing.keys[i] for i in order], sorted(listing.skipped))


def inside(root: Path, path: Path) -> Path:
    """Refuse links out of the folder: a data set from elsewhere must not pull in files of this machine."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))  # unlike Path.resolve, it also ends where links go in circles
    if not target.is_relative_to(os.path.realpath(root)):
        raise UserError(
            f"{path}: is a link to {target}, outside {root}. Links within a dataset folder must stay in it: copy or "
            "move what it leads to into the folder (dataset.path itself may be anywhere)."
        )
    return path


def _add_images(
    listing: Listing, root: Path, folder: Path, key: str, deeper: list[tuple[str, Path]] | None = None
) -> int:
    """Add what lies in `folder` to `listing`, and the folders in it to `deeper`; return how many images there are."""
    count = 0
    for name, path in _visible(inside(root, folder)).items():
        if deeper is not None and path.is_dir():
            # Links come last, so that it is them that lead to what is read already.
            deeper.insert(0 if path.is_symlink() else len(deeper), (f"{key}/{name}", path))
        elif path.suffix.lower() not in SUFFIXES:
            listing.skipped.append(path)
        elif not inside(root, path).is_file():  # a folder, a link to nothing, or a pipe, which would be waited for
            raise UserError(f"{path}: is no file, though it is called an image. Remove or rename it.")
        else:
            listing.paths.append(path)
            listing.keys.append(f"{key}/{name}")
            count += 1
    return count


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
