"""Writes a store of images batch by batch."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import replacing_folder, write_json
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.image_batches import Levels, Moments, Pixels, batches, dtype_of, resized
from kafal_pipeline.data.progress import progress
from kafal_pipeline.data.sources import RawData
from kafal_pipeline.data.store.fingerprint import note_written

FORMAT = 1
META = "meta.json"
IDENTIFIED = ("test_files", "train_ids", "test_ids")  # only where labels are missing
COLUMNS = ("train_labels", "test_labels", "train_clients", "test_clients", "train_files", *IDENTIFIED)
ARRAYS = ("train_images", "test_images", *COLUMNS)


def content_config(config: DatasetConfig) -> dict[str, Any]:
    """Return the parameters that a store's content depends on."""
    return config.model_dump(mode="json", exclude={"label", "download"})


def write_store(config: DatasetConfig, data: RawData, content: str, folder: Path, what: str = "Images stored") -> None:
    """Write `data` to a store, all of it or nothing.

    `config`: the section ``dataset``; its ``image_size``, ``resize``, ``mean`` and ``std`` are applied here. `data`:
    the data as read from the source. `content`: the digest of the source's files. `folder`: the store; an old one is
    replaced. `what`: what its progress is called. Raises `UserError` if ``dataset.mean`` or ``dataset.std`` has not one
    item per channel.
    """
    channels = data.train_images.shape[-1]
    for key in ("mean", "std"):
        given = getattr(config, key)
        if given is not None and len(given) != channels:
            raise UserError(
                f"dataset.{key}: found {len(given)} items; {config.name} has {channels} channels, so give {channels}."
            )
    levels = Moments(channels) if dtype_of(data.train_images).kind == "f" else Levels(channels)
    sized = partial(resized, size=config.image_size, resize=config.resize)
    total = len(data.train_labels) + len(data.test_labels)
    with replacing_folder(folder) as temporary, progress(what, total) as advance:
        arrays = {
            "train_images": _write_images(temporary / "train_images.npy", sized(data.train_images), advance, levels),
            "test_images": _write_images(temporary / "test_images.npy", sized(data.test_images), advance),
        }
        for name in COLUMNS:
            if getattr(data, name) is not None:
                column = np.asarray(getattr(data, name))
                arrays[name] = _write_npy(temporary / f"{name}.npy", column.shape, column.dtype, [column])
        mean, std = levels.mean_and_std()
        meta = {
            "format": FORMAT,
            "name": config.name,
            "config": content_config(config),
            "source": content,
            "classes": list(data.classes),
            "mean": config.mean or mean,
            "std": config.std or std,
            "arrays": arrays,
        }
        if data.client_names is not None:
            meta["client_names"] = list(data.client_names)
        write_json(temporary / META, meta, indent=2, sort_keys=True)
    note_written(folder, arrays)


def _write_images(
    path: Path, pixels: Pixels, advance: Callable[[int], None], levels: Levels | Moments | None = None
) -> dict[str, Any]:
    """Write images as they come, counting their levels where `levels` is given; `advance` is told how many came."""

    def counted() -> Iterator[NDArray[Any]]:
        for batch in batches(pixels):
            if levels is not None:
                levels.add(batch)
            yield batch
            advance(len(batch))

    return _write_npy(path, pixels.shape, dtype_of(pixels), counted())


def _write_npy(path: Path, shape: tuple[int, ...], dtype: DTypeLike, blocks: Iterable[NDArray]) -> dict[str, Any]:
    """Write blocks of rows to one ``.npy`` file and return its description.

    The file is written as a stream and not through a map, so that a full disk raises an error and does not kill the
    process, and so that its digest costs no second reading.
    """
    header = io.BytesIO()
    dtype = np.dtype(dtype)
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    )
    digest = hashlib.sha256(header.getvalue())
    with path.open("wb") as file:
        file.write(header.getvalue())
        for block in blocks:
            plain = np.ascontiguousarray(block, dtype=dtype)
            file.write(plain.data)
            digest.update(plain.data)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return {"shape": list(shape), "dtype": str(dtype), "bytes": size, "sha256": digest.hexdigest()}
