"""scikit-learn's bundled digits: 1,797 real grey images of 8 x 8 pixels, no download."""

from pathlib import Path

import numpy as np

from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources.base import RawData, Source

TEST_EVERY = 5


def source(config: DatasetConfig, raw: Path) -> Source:
    """Return the digits; both arguments are those of every named data set and are not needed here."""
    return Source("digits", raw, (), False, _read)


def _read() -> RawData:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int64)
    test = _every_fifth_of_each_class(labels)
    return RawData(images[~test], labels[~test], images[test], labels[test], tuple("0123456789"))


def _every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    """Return a mask of 20 % of each class, the same for all seeds: trials must share their test set."""
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        # From the middle of each five, so that a class of n gives round(n / 5).
        test[np.flatnonzero(labels == label)[TEST_EVERY // 2 :: TEST_EVERY]] = True
    return test
