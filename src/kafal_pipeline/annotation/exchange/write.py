"""Writes a request as files for other tools: a table, tasks of Label Studio, lists for CVAT, and its images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.annotation.exchange import cvat, label_studio, spreadsheet
from kafal_pipeline.annotation.requests import Asked, Request
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data.images import ImageData

IMAGES = "images"
"""The folder of images in that of a request."""

VISIBLE = 256
"""Images of fewer pixels on a side are enlarged by a whole number, so that people see something."""

CHANNELS = (1, 3, 4)


def export(
    request: Request,
    samples: Sequence[Asked],
    folder: Path,
    images: ImageData,
    source: Path | None,
    file_names: Literal["opaque", "original"],
    place: str | None = None,
) -> None:
    """Write `samples` of a request into `folder`, which is there and empty but for the manifest.

    Parameters
    ----------
    source
        The dataset folder that the images' files are relative to; None where images are no files.
    file_names
        ``opaque``: images are linked or copied under their ids. ``original``: the files refer to those of the data set.
        Images that are no files are written as PNG under their ids either way.
    place
        Where the folder will be, below that of all requests, which is Label Studio's document root: by default
        ``<run>/<request>``. With original names that root is the folder above the dataset folder.

    Raises
    ------
    UserError
        If an image has gone, or has a number of channels that no PNG has.
    """
    if source is not None and file_names == "original":
        names = [str(asked.file) for asked in samples]
        served = [f"{source.resolve().name}/{name}" for name in names]
        in_cvat = names
    else:
        (folder / IMAGES).mkdir()
        in_cvat = [_write_image(asked, folder / IMAGES, images, source) for asked in samples]
        names = [f"{IMAGES}/{name}" for name in in_cvat]
        served = [f"{place or f'{request.run}/{request.name}'}/{name}" for name in names]
    spreadsheet.write(request, samples, names, folder / spreadsheet.FILE)
    label_studio.write_tasks(request, samples, served, folder / label_studio.TASKS)
    label_studio.write_config(request.classes, folder / label_studio.CONFIG)
    cvat.write_images(in_cvat, folder / cvat.IMAGES)
    cvat.write_labels(request.classes, folder / cvat.LABELS)


def _write_image(asked: Asked, folder: Path, images: ImageData, source: Path | None) -> str:
    """Put an image into a folder under its id, and return its file's name."""
    if source is None or asked.file is None:
        pixels = images.train_images if asked.part == "train" else images.test_images
        name = f"{asked.sample}.png"
        _write_png(pixels[asked.row], folder / name)
        return name
    name = f"{asked.sample}{PurePosixPath(asked.file).suffix.lower()}"
    original = os.path.realpath(source / asked.file)  # a link to a link would show its target's name
    try:
        os.link(original, folder / name)
    except FileNotFoundError:
        raise UserError(f"{source / asked.file}: has gone since the data set was read. Put it back.") from None
    except OSError:  # another file system, or one without links
        shutil.copyfile(original, folder / name)
    return name


def _write_png(image: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image

    channels = image.shape[-1]
    if channels not in CHANNELS:
        raise UserError(
            f"images of {channels} channels cannot be shown to people: a PNG has 1, 3 or 4. Give the data set as a "
            "folder of images."
        )
    times = max(1, VISIBLE // max(image.shape[:2]))
    enlarged = np.repeat(np.repeat(image, times, axis=0), times, axis=1)
    Image.fromarray(enlarged[..., 0] if channels == 1 else enlarged).save(
        path, compress_level=1, compress_type=3
    )  # Z_RLE: the fastest
