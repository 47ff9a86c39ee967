from __future__ import annotations

import numpy as np
import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import client_pools, initial_pool
from kafal_pipeline.models.state import initial_state

SIZE, CLASSES = 120, 3


@pytest.fixture
def images() -> ImageData:
    """120 tiny images in three classes that differ in brightness, all in memory."""
    rng = np.random.default_rng(0)
    labels = np.arange(SIZE) % CLASSES
    pixels = rng.integers(0, 90, size=(SIZE, 6, 6, 1)) + 80 * labels[:, None, None, None]
    train, test = pixels[:90].astype(np.uint8), pixels[90:].astype(np.uint8)
    return ImageData(
        "tiny", train, labels[:90], test, labels[90:], ("dark", "grey", "light"), np.array([0.5]), np.array([0.25])
    )


@pytest.fixture
def make_config():
    def make(**changes):
        values = {
            "cycles": 2,
            "partition": {"clients": 4},
            "budget": {"initial": 6, "per_cycle": 4},
            "federation": {"rounds": 3, "participation": 0.5},
            "training": {"local_epochs": 1, "batch_size": 4, "processes": 1},
        }
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
        return resolve(values)

    return make


@pytest.fixture
def pools(images, make_config):
    split = [list(range(client, 90, 4)) for client in range(4)]
    config = make_config()
    return client_pools(initial_pool(split, images.train_labels, config.budget, config.cycles, config.seed))


@pytest.fixture
def start():
    return initial_state("resnet8", in_channels=1, num_classes=CLASSES, seed=0, cycle=0)
