"""The baseline: samples chosen uniformly at random."""

from dataclasses import dataclass

import numpy as np

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.pool import PoolView


@dataclass(frozen=True)
class Random(ScoreQuery):
    """Uniform choice without replacement; the scores are the uniform numbers drawn."""

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        return rng.random(len(pool))
