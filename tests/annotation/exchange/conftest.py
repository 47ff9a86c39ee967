"""A data set of two wards with images of two cycles, and what was asked of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wards import CLASSES, name, request

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.requests import Request
from kafal_pipeline.data.images import ImageData


@pytest.fixture
def requests() -> list[Request]:
    """What the run has asked of two clients in two cycles."""
    return [
        request(0, 0, range(6), test=2),
        request(0, 1, range(10, 14)),
        request(1, 0, range(20, 24)),
        request(1, 1, range(30, 33)),
    ]


@pytest.fixture
def images() -> ImageData:
    """The pixels of all images."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    unknown = np.full(40, -1)
    return ImageData("wards", pixels, unknown, pixels, unknown, CLASSES, np.full(3, 0.5), np.full(3, 0.5))


@pytest.fixture
def dataset(tmp_path: Path, images: ImageData) -> Path:
    """The dataset folder with the images' files."""
    folder = tmp_path / "raw" / "my wards"
    (folder / "unlabelled").mkdir(parents=True)
    for number in range(40):
        Image.fromarray(images.train_images[number]).save(folder / name(number))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    """An empty store of answers."""
    return AnswerStore(tmp_path / "labels")


@pytest.fixture
def written(tmp_path: Path):
    """Return a function that writes a file and returns its path."""

    def write(content: str | bytes, file: str = "answers") -> Path:
        path = tmp_path / file
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
