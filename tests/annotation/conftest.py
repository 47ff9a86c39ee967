from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from kafal_pipeline.annotation.answers import Answer
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData


@pytest.fixture
def truth() -> ImageData:
    """60 training and 12 test images of 8 x 8, three classes."""
    rng = np.random.default_rng(0)
    return ImageData(
        name="mine",
        train_images=rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8),
        train_labels=np.arange(60) % 3,
        test_images=rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8),
        test_labels=np.arange(12) % 3,
        classes=("ape", "bee", "cat"),
        mean=np.array([0.5]),
        std=np.array([0.25]),
    )


@pytest.fixture
def identified():
    """Return a function that returns a data set which knows only some of its labels, with ids."""

    def ids(pixels):
        return np.array([f"s{hashlib.sha256(image.tobytes()).hexdigest()[:12]}" for image in pixels])

    def make(images: ImageData, known: np.ndarray, test_known: bool = True) -> ImageData:
        return replace(
            images,
            train_labels=np.where(known, images.train_labels, -1),
            test_labels=images.test_labels if test_known else np.full_like(images.test_labels, -1),
            train_ids=ids(images.train_images),
            test_ids=ids(images.test_images),
        )

    return make


@pytest.fixture
def people():
    def config(**annotation):
        return resolve(
            {
                "cycles": 2,
                "annotation": {"source": "people", **annotation},
                "partition": {"method": "iid", "clients": 2, "min_size": 1},
                "budget": {"initial": 6, "per_cycle": 4},
                "dataset": {"name": "mine"},
            }
        )

    return config


@pytest.fixture
def answer():
    def make(sample, label=None, status=None, annotator="ann", time="2026-01-01T00:00:00.000+00:00", **more):
        status = status or ("labelled" if label else "skipped")
        return Answer(sample, status, label, annotator, time, "csv", more.pop("cycle", 0), "q", **more)

    return make
