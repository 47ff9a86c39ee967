"""Desks with requests, as a waiting run leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.requests import MANIFEST, Asked, Request
from kafal_pipeline.config import AnnotationConfig
from kafal_pipeline.data.images import ImageData

CLASSES = ("cat", "dog", "horse")
RUN = "pets/random-fedavg/seed_0"


def sample_of(row: int) -> str:
    """The id of an image; test images come after the training images."""
    return f"{row:012x}"


def picture(row: int, size: int) -> np.ndarray:
    """Something to look at, and another one for each row."""
    drawn = np.random.default_rng(row)
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(drawn.uniform(3, 20) * x + drawn.uniform(3, 20) * y + drawn.uniform(0, 6)) for _ in range(3)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def make_images(
    train: int, test: int = 0, classes: Sequence[str] = CLASSES, size: int = 16, files: bool = False
) -> ImageData:
    """Unlabelled images; with `files` their pixels are in files, see `write_files`."""
    count = train + test
    if files:
        pixels = np.zeros((count, 1, 1, 3), dtype=np.uint8)
    else:
        pixels = np.stack([picture(row, size) for row in range(count)])
    ids = np.array([sample_of(row) for row in range(count)])
    names = np.array([f"unlabelled/picture {row}.png" for row in range(count)])
    return ImageData(
        name="pets",
        train_images=pixels[:train],
        train_labels=np.full(train, -1),
        test_images=pixels[train:],
        test_labels=np.full(test, -1),
        classes=tuple(classes),
        mean=np.zeros(3),
        std=np.ones(3),
        train_ids=ids[:train],
        test_ids=ids[train:],
        train_files=names[:train] if files else None,
        test_files=names[train:] if files else None,
    )


def write_files(folder: Path, images: ImageData, size: int) -> Path:
    """Write the images' files."""
    assert images.train_files is not None and images.test_files is not None
    (folder / "unlabelled").mkdir(parents=True)
    for row, file in enumerate([*images.train_files, *images.test_files]):
        Image.fromarray(picture(row, size)).save(folder / str(file))
    return folder


def ask(
    folder: Path,
    train: Sequence[int],
    test: Sequence[int] = (),
    *,
    cycle: int = 0,
    client: int = 0,
    name: str | None = None,
    classes: Sequence[str] = CLASSES,
    reserve: int = 0,
) -> Request:
    """Write a request for rows of the training images and, after them in rank, of the test images; keep the last ones
    of `train` in reserve."""
    asked = [("train", row) for row in train] + [("test", row) for row in test]
    samples = tuple(Asked(sample_of(row), part, row, None, rank) for rank, (part, row) in enumerate(asked))  # type: ignore[arg-type]
    number = len(samples) - reserve
    request = Request(RUN, cycle, client, name, tuple(classes), samples[:number], samples[number:])
    place = folder / "requests" / request.name
    place.mkdir(parents=True, exist_ok=True)
    (place / MANIFEST).write_text(json.dumps(request.manifest(files=False)))
    return request


def make_desk(folder: Path, images: ImageData, source: Path | None = None, **config: Any) -> Desk:
    """The desk of the requests in a folder."""
    section = AnnotationConfig(source="people", **config)
    return Desk(RUN, folder / "requests", folder / "labels", images, section, source)
