"""Small data sets to read, and the folder of real ones where there is one."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def arrays():
    """MedMNIST's keys: 12 + 6 colour images of 4 x 5 pixels, 3 classes."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8),
        "train_labels": np.arange(12) % 3,
        "test_images": rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
    }


@pytest.fixture
def image_folder(tmp_path):
    """Grey images of 6 x 4 pixels in the classes cat and dog, 3 + 2 of each; `pixels` of each is its number."""
    root = tmp_path / "photos"
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((4, 6), 100 * label + number, dtype=np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture
def published_split():
    """The path of KAFAL's published split, next to the repository."""
    path = Path(__file__).parents[3] / "shared/data/kafal_cifar10_alpha0.1_10clients.json"
    if not path.is_file():
        pytest.skip("the published split is not here")
    return path


@pytest.fixture
def real_data():
    """Return a function that finds a file of a real data set below $KAFAL_TEST_DATA."""
    root = os.environ.get("KAFAL_TEST_DATA")

    def find(pattern):
        found = sorted(Path(root).glob(f"**/{pattern}")) if root else []
        if not found:
            pytest.skip(f"KAFAL_TEST_DATA names no folder with {pattern}")
        return found[0]

    return find
