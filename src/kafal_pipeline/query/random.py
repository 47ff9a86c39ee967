"""The baseline: samples chosen uniformly at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kafal_pipeline.query.base import PoolView, Selection, largest


@dataclass(frozen=True)
class Random:
    """Uniform choice without replacement; the scores are the uniform numbers drawn."""

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Choose `budget` samples of the pool at random."""
        return largest(pool.samples, rng.random(len(pool.samples)), budget, rng)
