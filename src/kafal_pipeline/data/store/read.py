"""A data set on disk as plain arrays, written once and then mapped into memory by every process that needs it.

A store is a folder of ``.npy`` files and a ``meta.json``, which holds what it was made from (the parameters and a
digest of the source's files) and what it is made of (shape, type and SHA-256 of each file).
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.locks import alone
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.images import ImageData
from kafal_pipeline.data.sources import Source, find_source
from kafal_pipeline.data.store import write as store_writer
from kafal_pipeline.data.store.fingerprint import (
    as_written,
    content_digest,
    file_digests,
    stat_digest,
    unchanged,
    write_note,
)
from kafal_pipeline.data.store.ids import with_ids

logger = logging.getLogger(__name__)


def open_store(config: DatasetConfig, raw: Path, folder: Path, base: Path = Path()) -> ImageData:
    """Return a data set mapped from its store, which is made first where it is not there or out of date.

    - `raw`: the folder of downloaded and hand-made files, ``data/01_raw``.
    - `folder`: the store. It is replaced as a whole when the source's files or the parameters have changed, or when it
      is damaged; when the source is gone, a store made with the same parameters is used as it is.
    - `base`: what a relative ``dataset.path`` starts from: the project's folder.

    Raises `UserError` if the data set cannot be found or read, or its content is not allowed.
    """
    source = find_source(config, raw, base)
    note = folder.with_name(f".{folder.name}.source.json")
    meta = _whole(folder)
    if meta is not None and meta["config"] == store_writer.content_config(config):
        if source.missing:
            logger.info("The files of %s are gone; using %s, made from them before", config.name, folder)
            return read_store(folder)
        if _complete(meta, source) and unchanged(source, meta["source"], note):
            if not (others := as_written(folder, meta["arrays"])):
                return read_store(folder, trusted=True)
            logger.warning("%s: not as it was written (%s); it is made again", folder, ", ".join(others))
    data = source.read()
    source = find_source(config, raw, base)  # its files may just have been downloaded
    # Sizes and times come before the bytes: a file that changes in between is read again next time, never missed.
    stat, digests = stat_digest(source), file_digests(source)
    content = content_digest(source, digests)
    with alone(folder.with_name(f".{folder.name}.lock")):
        # Another run of the same moment may have put the same store there, and be using it.
        meta = _whole(folder)
        same = meta is not None and (meta["config"], meta["source"]) == (store_writer.content_config(config), content)
        if meta is None or not same or not _complete(meta, source) or as_written(folder, meta["arrays"]):
            store_writer.write_store(config, with_ids(data, digests), content, folder)
    write_note(note, content, stat)
    return read_store(folder)


def read_store(folder: Path, *, trusted: bool = False) -> ImageData:
    """Map a store into memory: milliseconds, whatever its size, unless its files are to be read first.

    The arrays are mapped copy-on-write: processes share their pages, torch takes them without a copy, and writing to
    them changes neither the file nor what other processes see.

    `trusted`: leave out to compare files with their SHA-256s where their sizes or times are not those of the last
    reading, since another process has just done so. Raises `UserError` if the folder is no store, or a file of it is
    missing or is not what was written.
    """
    meta = _whole(folder)
    if meta is None:
        raise UserError(
            f"{folder}: is no whole store of images. Remove the folder and make it again with "
            "`kedro run --pipeline data`."
        )
    if not trusted and (others := as_written(folder, meta["arrays"])):
        raise UserError(
            f"{folder}: not as it was written (another SHA-256: {', '.join(others)}). Remove the folder and make it "
            "again with `kedro run --pipeline data`."
        )
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        for name in store_writer.ARRAYS
        if name in meta["arrays"]
    }
    return ImageData(
        name=meta["name"],
        classes=tuple(meta["classes"]),
        mean=np.array(meta["mean"], dtype=np.float64),
        std=np.array(meta["std"], dtype=np.float64),
        client_names=tuple(meta["client_names"]) if "client_names" in meta else None,
        folder=folder,
        **arrays,
    )


def stored_as(folder: Path, content: str) -> ImageData | None:
    """Return the store in `folder` if it is whole, as it was written, and made from what has the digest `content`."""
    meta = _whole(folder)
    if meta is None or meta["source"] != content or as_written(folder, meta["arrays"]):
        return None
    return read_store(folder, trusted=True)


def _whole(folder: Path) -> dict[str, Any] | None:
    """Return a store's description, None if there is no store or it is not as it was written."""
    try:
        meta = json.loads((folder / store_writer.META).read_text(encoding="utf-8"))
        if meta["format"] != store_writer.FORMAT or not set(meta["arrays"]) <= set(store_writer.ARRAYS):
            return None
        for name, array in meta["arrays"].items():
            path = folder / f"{name}.npy"
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            found = (list(mapped.shape), str(mapped.dtype), path.stat().st_size)
            if found != (array["shape"], array["dtype"], array["bytes"]):
                return None
        return meta if _consistent(meta, folder) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError, MemoryError):
        return None


def _complete(meta: dict[str, Any], source: Source) -> bool:
    """Tell whether a store has all that this version keeps: older ones have no names of clients and files."""
    clients, files = (name in meta["arrays"] for name in ("train_clients", "train_files"))
    return ("client_names" in meta) == clients and files == (source.kind == "folder")


def _consistent(meta: dict[str, Any], folder: Path) -> bool:
    """Tell whether a store's description has all its parts, and agrees with its arrays; may raise if it has not."""
    channels = meta["arrays"]["train_images"]["shape"][-1]
    mean, std = (np.array(meta[key], dtype=np.float64) for key in ("mean", "std"))
    columns = {
        name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in meta["arrays"] if "images" not in name
    }
    names = {"train_labels": meta["classes"], "test_labels": meta["classes"]}
    if "client_names" in meta:
        names |= {"train_clients": meta["client_names"], "test_clients": meta["client_names"]}
    known = _known(columns)
    return (
        isinstance(meta["name"], str)
        and known is not None
        and all(isinstance(meta[key], kind) for key, kind in (("config", dict), ("source", str), ("classes", list)))
        and "test_images" in meta["arrays"]
        and mean.shape == std.shape == (channels,)
        and bool(np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all())
        and all(isinstance(names[key], list) for key in names)
        and all(
            columns[key].min() >= (0 if known or "clients" in key else -1) and columns[key].max() < len(names[key])
            for key in names
            if key in columns
        )
    )


def _known(columns: dict[str, NDArray]) -> bool | None:
    """Tell whether all labels are known: where not, images have ids, and test images files; None if that is not so."""
    known = all(columns[f"{split}_labels"].min() >= 0 for split in ("train", "test"))
    wanted = set() if known else {"train_ids", "test_ids"} | ({"test_files"} if "train_files" in columns else set())
    if set(store_writer.IDENTIFIED) & set(columns) != wanted:
        return None
    lengths = all(columns[key].shape == columns[f"{key.partition('_')[0]}_labels"].shape for key in wanted)
    ids = [name for key in wanted if "ids" in key for name in columns[key].tolist()]
    return known if lengths and len(set(ids)) == len(ids) else None
