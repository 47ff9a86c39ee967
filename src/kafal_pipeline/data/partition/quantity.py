"""Partitions blind to labels: equal sizes, or skewed ones."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import PartitionConfig

MAX_DRAWS = 1000


def iid(labels: NDArray[np.int64], config: PartitionConfig, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Give every client the same number of samples (give or take one), drawn from all."""
    return list(np.array_split(rng.permutation(len(labels)), config.clients))


def quantity_skew(
    labels: NDArray[np.int64], config: PartitionConfig, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw the clients' shares from Dir(alpha), and their samples from all; none gets fewer than ``min_size``."""
    sizes = draw_until_large_enough(
        lambda: apportioned(rng.dirichlet(np.full(config.clients, config.alpha)), len(labels)), config, len(labels)
    )
    return np.split(rng.permutation(len(labels)), np.cumsum(sizes)[:-1])


def apportioned(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Return whole numbers that sum to `total`, each within one of its share (rounded running sums)."""
    ends = np.round(np.cumsum(shares) * total).astype(np.int64)
    ends[-1] = total
    return np.diff(np.minimum(ends, total), prepend=0)


def draw_until_large_enough(
    draw: Callable[[], NDArray[np.int64]], config: PartitionConfig, total: int
) -> NDArray[np.int64]:
    """Repeat `draw`, which returns counts whose last axis is the clients, until all have ``min_size`` samples.

    Raises `UserError` if no draw of `MAX_DRAWS` is good enough.
    """
    best = 0
    for _ in range(MAX_DRAWS):
        counts = draw()
        smallest = int(counts.reshape(-1, config.clients).sum(axis=0).min())
        if smallest >= config.min_size:
            return counts
        best = max(best, smallest)
    raise UserError(
        f"partition.min_size: {config.min_size} samples for each of {config.clients} clients were not reached in "
        f"{MAX_DRAWS} draws of {total} samples with alpha = {config.alpha}; in the best one the smallest client had "
        f"{best}. Lower partition.min_size or partition.clients, or raise partition.alpha."
    )
