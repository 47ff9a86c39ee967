"""Two wards whose images have no labels: their ids, their files, and what is asked of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kafal_pipeline.annotation.requests import MANIFEST, Asked, Request
from kafal_pipeline.common.files import write_json

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


def write_manifest(folder: Path, asked: Request) -> Path:
    """Write a request's folder below that of all requests, and return it."""
    place = folder / asked.run / asked.name
    place.mkdir(parents=True)
    write_json(place / MANIFEST, asked.manifest(files=True))
    return place
