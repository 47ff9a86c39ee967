"""Cuts a balanced training set down to a long tail."""

import math

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.config import LongTailConfig


def long_tail_sizes(largest: int, classes: int, config: LongTailConfig) -> list[int]:
    """Return how many samples each class keeps at most, classes in the order of their labels.

    ``exponential``: class c keeps ``largest * ratio ** (-c / (C - 1))``; ``step``: the first half of the classes keeps
    all, the second half ``largest / ratio``. Rounded down, at least 1 (Cui et al., CVPR 2019; Buda et al., 2018).

    >>> from kafal_pipeline.config import LongTailConfig
    >>> long_tail_sizes(1000, 3, LongTailConfig(imbalance_ratio=100))
    [1000, 100, 10]
    >>> long_tail_sizes(1000, 4, LongTailConfig(imbalance_ratio=10, profile="step"))
    [1000, 1000, 100, 100]
    """
    if config.profile == "step":
        exponents = [0.0 if label < classes // 2 else 1.0 for label in range(classes)]
    else:
        exponents = [label / max(1, classes - 1) for label in range(classes)]
    # 100 ** -0.5 * 1000 is 99.99999999999999 or so: round that noise away before rounding down.
    return [max(1, math.floor(round(largest * config.imbalance_ratio**-exponent, 6))) for exponent in exponents]


def long_tail_indices(labels: NDArray[np.int64], config: LongTailConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the sorted training indices that remain; those of one class are drawn without preference."""
    counts = np.bincount(labels)
    kept = []
    for label, size in enumerate(long_tail_sizes(int(counts.max()), len(counts), config)):
        members = np.flatnonzero(labels == label)
        kept.append(members[rng.permutation(len(members))[:size]])
    return np.sort(np.concatenate(kept))
