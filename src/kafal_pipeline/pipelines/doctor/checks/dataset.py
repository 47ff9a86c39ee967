"""Checks that the data is there and is the data that the parameters name."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import file_digest
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import ImageData, read_store
from kafal_pipeline.data.image_batches import dtype_of
from kafal_pipeline.data.sources import RawData, Source, find_source
from kafal_pipeline.data.sources.checks import check_annotation, one_sided
from kafal_pipeline.data.store.fingerprint import content_digest
from kafal_pipeline.data.store.write import META, content_config
from kafal_pipeline.pipelines.doctor.checks.disk import room
from kafal_pipeline.pipelines.doctor.finding import FAILURE, LARGE, OK, WARNING, Finding, in_bytes
from kafal_pipeline.pipelines.doctor.shape import DataShape, published_shape, resized
from kafal_pipeline.runs.layout import RAW, image_store

CHECK = "data"
HASHED = 4 << 30  # bytes up to which a store's files are read to compare their digests: seconds


DECODING_SECONDS = 10.0
"""For image files; where there are more than can be decoded in that time, of the others the headers alone are read."""


@dataclass(frozen=True)
class Seen:
    """What was found: the data's shape, where it can be known; whether it is downloaded and stored already."""

    finding: Finding
    shape: DataShape | None = None
    downloaded: bool = True
    stored: bool = False


def needs_torchvision(config: DatasetConfig, root: Path) -> bool:
    """Tell whether torchvision has to read or to download the data set."""
    try:
        return find_source(config, root / RAW, root).kind == "torchvision"
    except UserError:  # a folder that is not as it should be; `look` says so
        return False


def look(config: DatasetConfig, root: Path, annotation: str = "oracle") -> Seen:
    """Look for the configured data set, check its files and its store, and that ``annotation.source`` suits it."""
    try:
        source = find_source(config, root / RAW, root)
        folder = image_store(root, config)
        meta = _meta(folder)
        if meta is not None and meta.get("config") == content_config(config):
            if not source.missing and content_digest(source) != meta["source"]:
                changed = "its files have changed since the store was made, which is made again"
                return _with_remarks(config, annotation, *_read(config, source, root, changed))
            return _with_remarks(config, annotation, *_stored(config, folder, meta, source))
        if source.missing and source.kind == "torchvision" and config.download:
            found = f"{config.name} is not here yet: the run downloads it to {root / RAW} and checks it"
            return Seen(Finding(CHECK, OK, found), published_shape(config), downloaded=False)
        return _with_remarks(config, annotation, *_read(config, source, root))
    except UserError as error:
        return Seen(Finding(CHECK, FAILURE, str(error)), published_shape(config), downloaded=False)
    except OSError as error:
        advice = "Give it back its permissions, or copy it again."
        return Seen(Finding(CHECK, FAILURE, f"{error.filename} cannot be read ({error.strerror})", advice))


def _meta(folder: Path) -> dict[str, Any] | None:
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and {"config", "source", "arrays"} <= set(meta) else None


def _read(config: DatasetConfig, source: Source, root: Path, remark: str = "") -> tuple[RawData, Seen]:
    """Read the source as the run would; it verifies what it knows checksums of."""
    data = source.read()
    shape = resized(_shape(data, len(data.classes)), config.image_size)
    found = f"{_counts(config, data, shape)}, {_legible(data)}"
    found, (free, place) = f"{found}; {remark}" if remark else found, room(root)
    if shape.pixel_bytes < free:
        return data, Seen(Finding(CHECK, OK, found), shape)
    advice = (
        f"The store takes {in_bytes(shape.pixel_bytes)}, and {in_bytes(free)} are free at {place}: make room, let "
        "data/ be a link to a larger disk, or set a smaller dataset.image_size."
    )
    return data, Seen(Finding(CHECK, WARNING, found, advice), shape)


def _counts(config: DatasetConfig, data: RawData | ImageData, shape: DataShape) -> str:
    """Return the name and the numbers of a data set in words."""
    unlabelled = f", {data.unlabelled:,} of the images without a label" if data.unlabelled else ""
    size = f", a store of {in_bytes(shape.pixel_bytes)}" if shape.pixel_bytes >= LARGE else ""
    return f"{config.name}: {shape}{unlabelled}{size}"


def _legible(data: RawData) -> str:
    """Decode image files and say of how many that was; raises `UserError` at the first one that cannot be decoded."""
    if data.train_files is None:
        return "all files legible"
    begin = time.monotonic()
    both = [(pixels, place) for pixels in (data.train_images, data.test_images) for place in range(pixels.shape[0])]
    for done, (pixels, place) in enumerate(both):
        if time.monotonic() - begin > DECODING_SECONDS:
            return f"{done:,} files decoded; of the others the headers alone were read, to save time"
        pixels[place : place + 1]
    return "all files decoded"


def _with_remarks(config: DatasetConfig, annotation: str, data: RawData | ImageData, seen: Seen) -> Seen:
    """Add to a finding what the labels give reason to."""
    if seen.finding.status != FAILURE:
        try:
            check_annotation(annotation, config.name, data.train_labels, data.test_labels)
        except UserError as error:
            return replace(seen, finding=Finding(CHECK, FAILURE, str(error)))
    remark = one_sided(data.classes, data.train_labels, data.test_labels)
    if remark is None or seen.finding.status != OK:
        return seen
    return replace(seen, finding=replace(seen.finding, status=WARNING, advice=f"{remark}."))


def _stored(config: DatasetConfig, folder: Path, meta: dict[str, Any], source: Source) -> tuple[ImageData, Seen]:
    """Compare the files of a store with the digests that were written with it."""
    images = read_store(folder, trusted=True)  # its digests are compared below
    shape = _shape(images, images.num_classes)
    found = _counts(config, images, shape)
    if source.missing:
        found += " (of the store; the files that it was made from are gone)"
    if sum(array["bytes"] for array in meta["arrays"].values()) > HASHED:
        advice = f"To compare the digests: sha256sum {folder}/*.npy, next to those in {META}."
        finding = Finding(CHECK, WARNING, f"{found}, of the right sizes; too large to be read here", advice)
        return images, Seen(finding, shape, stored=True)
    files = {f"{name}.npy": array["sha256"] for name, array in meta["arrays"].items()}
    damaged = [name for name, digest in files.items() if file_digest(folder / name) != digest]
    if damaged:
        found = f"{folder}: {', '.join(damaged)} is not what was written (another SHA-256)"
        advice = "Remove the folder; the next run makes it again from the source."
        advice += " The source is gone: put it back first." if source.missing else ""
        return images, Seen(Finding(CHECK, FAILURE, found, advice), shape)
    return images, Seen(Finding(CHECK, OK, f"{found}, SHA-256 as written"), shape, stored=True)


def _shape(data: RawData | ImageData, classes: int) -> DataShape:
    height, width, channels = (int(size) for size in data.train_images.shape[1:])
    train, test = (int(images.shape[0]) for images in (data.train_images, data.test_images))
    return DataShape(train, test, (height, width, channels), classes, str(dtype_of(data.train_images)))
