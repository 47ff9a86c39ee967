"""A data set of two wards with images of two cycles, and what was asked of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.requests import MANIFEST, Asked, Request
from kafal_pipeline.common.files import write_json
from kafal_pipeline.data.images import ImageData

RUN = "wards/entropy-fedavg/seed_0"
CLASSES = ("cat", "dog", 'Grünspan <&> "Öl"')


def sample(number: int) -> str:
    """Return the id of an image."""
    return "s" + hashlib.sha256(f"image {number}".encode()).hexdigest()[:12]


def name(number: int) -> str:
    """Return the file of an image, which names a patient."""
    return f"unlabelled/Müller, Anna & Co #{number}.{'JPG' if number % 3 == 0 else 'png'}"


def request(cycle: int, client: int, numbers: range, run: str = RUN, test: int = 0) -> Request:
    """Return a request for images; the first `test` of them are test images."""
    asked = [
        Asked(sample(number), "test" if rank < test else "train", number, name(number), rank)
        for rank, number in enumerate(numbers)
    ]
    return Request(run, cycle, client, f"Ward {client}", CLASSES, tuple(asked))


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


def write_manifest(folder: Path, asked: Request) -> Path:
    """Write a request's folder below that of all requests, and return it."""
    place = folder / asked.run / asked.name
    place.mkdir(parents=True)
    write_json(place / MANIFEST, asked.manifest())
    return place
