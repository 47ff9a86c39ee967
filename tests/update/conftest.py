from __future__ import annotations

import numpy as np
import pytest
from simulated import train_cycle

from kafal_pipeline.common.threads import single_thread
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.models.state import initial_state


@pytest.fixture(autouse=True)
def one_thread():
    """As training computes: the tensors are too small for more."""
    with single_thread():
        yield


@pytest.fixture(scope="session")
def images() -> ImageData:
    """90 tiny images in three classes that differ in brightness, all in memory."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pixels = (rng.integers(0, 90, size=(90, 6, 6, 1)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    names = ("dark", "grey", "light")
    return ImageData("tiny", pixels, labels, pixels[:9], labels[:9], names, np.array([0.5]), np.array([0.25]))


@pytest.fixture(scope="session")
def make_pools(images):
    def make(sizes, unlabelled=7):
        """One client for each size, with that many labelled samples."""
        pools, start = {}, 0
        for client, size in enumerate(sizes):
            labelled = np.arange(start, start + size)
            others = np.arange(start + size, start + size + unlabelled)
            pools[client] = ClientPool(labelled, images.train_labels[labelled], others, others)
            start += size + unlabelled
        return pools

    return make


@pytest.fixture(scope="session")
def train(images):
    """Train cycles, each from the start; `federation` and `training` change those sections.

    `on_round` sees the state after every round; the last cycle's is returned.
    """

    def run(pools, update, *, federation=(), training=(), model="resnet8", on_round=None, start=None, cycles=1):
        config = resolve(
            {
                "update": update,
                "model": model,
                "partition": {"clients": len(pools)},
                "federation": {"rounds": 2, "participation": 1.0, **dict(federation)},
                "training": {
                    "local_epochs": 2,
                    "batch_size": 4,
                    "processes": 1,
                    "augmentation": {"flip": False, "crop_padding": 0},
                    **dict(training),
                },
            }
        )
        start = start or initial_state(
            config.model, in_channels=1, num_classes=3, seed=0, cycle=0, image_size=images.train_images.shape[1:3]
        )
        with Workers(images, config) as workers:
            for cycle in range(cycles):
                done = train_cycle(config, pools, start, cycle, workers, on_round)
        return config, start, done

    return run
